"""The layers that models share. A layer holds parameters and computes; it knows nothing of batching or caching."""

from backend.layers.attention import Attention, PagedAttention, chosen
from backend.layers.embedding import Embedding, LMHead, ScoreHead
from backend.layers.linear import Linear, MergedLinear
from backend.layers.mla import LatentAttention
from backend.layers.mlp import GatedMLP
from backend.layers.moe import Experts, SparseMLP
from backend.layers.norm import OffsetRMSNorm, RMSNorm
from backend.layers.rotary import Rotary, RotaryTables
from backend.layers.routing import SIGMOID, Router, Routing

__all__ = [
    "SIGMOID",
    "Attention",
    "Embedding",
    "Experts",
    "GatedMLP",
    "LMHead",
    "LatentAttention",
    "Linear",
    "MergedLinear",
    "OffsetRMSNorm",
    "PagedAttention",
    "RMSNorm",
    "Rotary",
    "RotaryTables",
    "Router",
    "Routing",
    "ScoreHead",
    "SparseMLP",
    "chosen",
]
