"""Model architectures, one short file each, on the shared layers."""

from backend.models.base import CausalLM, WeightError
from backend.models.registry import ARCHITECTURES, model_class

__all__ = ["ARCHITECTURES", "CausalLM", "WeightError", "model_class"]
