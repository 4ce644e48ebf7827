"""The layers that models share. A layer holds parameters and computes; it knows nothing of batching or caching."""

from backend.layers.attention import Attention, PagedAttention
from backend.layers.embedding import Embedding, LMHead
from backend.layers.linear import Linear, MergedLinear
from backend.layers.mlp import GatedMLP
from backend.layers.norm import OffsetRMSNorm, RMSNorm
from backend.layers.rotary import Rotary, RotaryTables

__all__ = [
    "Attention",
    "Embedding",
    "GatedMLP",
    "LMHead",
    "Linear",
    "MergedLinear",
    "OffsetRMSNorm",
    "PagedAttention",
    "RMSNorm",
    "Rotary",
    "RotaryTables",
]
