"""Model architectures, one short file each, on the shared layers. Which there are is known without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.models.registry import ARCHITECTURES, check_architecture, model_class

if TYPE_CHECKING:
    from backend.models.base import CausalLM, WeightError

__all__ = ["ARCHITECTURES", "CausalLM", "WeightError", "check_architecture", "model_class"]


def __getattr__(name: str) -> Any:
    if name not in ("CausalLM", "WeightError"):
        raise AttributeError(f"module 'backend.models' has no attribute {name!r}")
    import backend.models.base

    return getattr(backend.models.base, name)
