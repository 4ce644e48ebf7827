"""RoPE's parameters, from the keys of transformers 4 and 5 alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_SPELLINGS = {"su": "longrope", "none": "default", "mrope": "default"}
_PHI3_SPELLINGS = {**_SPELLINGS, "yarn": "longrope"}


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding. The scaling fields mean what they mean in the ``rope_parameters`` of transformers."""

    theta: float
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int | None = None
    partial_rotary_factor: float = 1.0  # share of each head that is rotated
    raw: dict[str, Any] = field(default_factory=dict)


def parse_rope(raw: dict[str, Any]) -> RopeConfig:
    """RoPE from ``rope_parameters`` (transformers 5) or from ``rope_theta`` and ``rope_scaling`` (transformers 4)."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    # Models that mix attention kinds have one set of parameters for each.
    return _parse(raw, scaling.get("full_attention", scaling), raw.get("rope_theta"))


def parse_local_rope(raw: dict[str, Any]) -> RopeConfig | None:
    """The parameters of the layers with a window, where they have their own."""
    scaling = (raw.get("rope_parameters") or {}).get("sliding_attention")
    if scaling is None and raw.get("rope_local_base_freq") is None:
        return None
    return _parse({}, scaling or {}, raw.get("rope_local_base_freq"))


def _parse(raw: dict[str, Any], scaling: dict[str, Any], theta: Any) -> RopeConfig:
    spellings = _PHI3_SPELLINGS if raw.get("model_type") == "phi3" else _SPELLINGS
    rope_type = str(scaling.get("rope_type") or scaling.get("type") or "default")
    rope_type = spellings.get(rope_type, rope_type)
    original = scaling.get("original_max_position_embeddings") or raw.get("original_max_position_embeddings")
    if rope_type == "dynamic":  # it begins where the declared context ends
        original = raw.get("max_position_embeddings")
    return RopeConfig(
        theta=float(scaling.get("rope_theta") or theta or 10000.0),
        rope_type=rope_type,
        factor=float(scaling.get("factor") or _stretch(raw, original)),
        low_freq_factor=float(scaling.get("low_freq_factor") or 1.0),
        high_freq_factor=float(scaling.get("high_freq_factor") or 4.0),
        original_max_position_embeddings=None if original is None else int(original),
        partial_rotary_factor=float(scaling.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0),
        raw=dict(scaling),
    )


def _stretch(raw: dict[str, Any], original: Any) -> float:
    """How far the context was stretched, where the configuration names no factor."""
    longest = raw.get("max_position_embeddings")
    return float(longest) / float(original) if longest and original else 1.0
