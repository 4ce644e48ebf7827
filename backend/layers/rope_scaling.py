"""How rotary frequencies are stretched to contexts longer than those of the training.

Every kind gives one fixed set of frequencies. Where the original scheme chooses them by the length of the sequence
(``dynamic``, ``longrope``), the longest served context decides for all: cached keys never have to be turned again, and
an answer depends neither on the prefix cache nor on how a prompt was cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from backend.loader.rope_config import RopeConfig

# rope, plain frequencies float32[rotated / 2], served positions -> frequencies, factor on the cosines and sines
_Scaling = Callable[[RopeConfig, torch.Tensor, int], tuple[torch.Tensor, float]]


def frequencies(rope: RopeConfig, rotated: int, max_positions: int) -> tuple[torch.Tensor, float]:
    """Rotation per position of each of the ``rotated / 2`` planes (float32), and the factor on cosines and sines.

    ``ValueError`` for an unknown ``rope_type`` or one that lacks a parameter.
    """
    if rope.rope_type not in _SCALINGS:
        raise ValueError(f"rope_type {rope.rope_type!r} is not supported; known: {', '.join(_SCALINGS)}")
    if not (0 < rope.theta < math.inf and 0 < rope.factor < math.inf):
        raise ValueError(f"rope_theta and rope_scaling's factor must be above 0, got {rope.theta} and {rope.factor}")
    plain = 1.0 / rope.theta ** (torch.arange(0, rotated, 2, dtype=torch.float32) / rotated)
    return _SCALINGS[rope.rope_type](rope, plain, max_positions)


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """What YaRN multiplies attention by, square root taken: one on the queries, one on the keys."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _default(rope: RopeConfig, plain: torch.Tensor, max_positions: int) -> tuple[torch.Tensor, float]:
    return plain, 1.0


def _linear(rope: RopeConfig, plain: torch.Tensor, max_positions: int) -> tuple[torch.Tensor, float]:
    return plain / rope.factor, 1.0


def _dynamic(rope: RopeConfig, plain: torch.Tensor, max_positions: int) -> tuple[torch.Tensor, float]:
    """NTK-aware: a larger base once the context passes the original one."""
    original = _original(rope)
    stretch = rope.factor * max(max_positions, original) / original - (rope.factor - 1)
    planes = len(plain)
    return plain * stretch ** -(torch.arange(planes, dtype=torch.float32) / max(planes - 1, 1)), 1.0


def _llama3(rope: RopeConfig, plain: torch.Tensor, max_positions: int) -> tuple[torch.Tensor, float]:
    """Llama 3.1: slow planes are stretched by ``factor``, fast ones kept, those between interpolated."""
    wavelength = 2 * math.pi / plain
    low, high, original = rope.low_freq_factor, rope.high_freq_factor, _original(rope)
    kept = ((original / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * plain / rope.factor + kept * plain, 1.0


def _yarn(rope: RopeConfig, plain: torch.Tensor, max_positions: int) -> tuple[torch.Tensor, float]:
    """YaRN (Peng et al., 2023): a ramp over the planes from ``beta_fast`` to ``beta_slow`` turns in the original."""
    rotated, original = 2 * len(plain), _original(rope)

    def plane(turns: float) -> float:
        return rotated * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    first, last = plane(rope.raw.get("beta_fast") or 32), plane(rope.raw.get("beta_slow") or 1)
    if rope.raw.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotated - 1)
    ramp = ((torch.arange(len(plain), dtype=torch.float32) - first) / max(last - first, 0.001)).clamp(0, 1)
    return ramp * plain / rope.factor + (1 - ramp) * plain, _yarn_attention(rope)


def _yarn_attention(rope: RopeConfig) -> float:
    given = rope.raw.get("attention_factor")
    if given is not None:
        return float(given)
    weight, all_dims = rope.raw.get("mscale"), rope.raw.get("mscale_all_dim")
    if weight and all_dims:
        return yarn_magnitude(rope.factor, weight) / yarn_magnitude(rope.factor, all_dims)
    return yarn_magnitude(rope.factor)


def _longrope(rope: RopeConfig, plain: torch.Tensor, max_positions: int) -> tuple[torch.Tensor, float]:
    """LongRoPE (Ding et al., 2024): a divisor for each plane, one list for short contexts and one for long ones."""
    original = _original(rope)
    name = "long_factor" if max_positions > original else "short_factor"
    divisors = rope.raw.get(name)
    if divisors is None or len(divisors) != len(plain):
        raise ValueError(f"rope_type 'longrope' needs {name} with {len(plain)} values")
    scale = rope.raw.get("attention_factor")
    if scale is None:
        scale = math.sqrt(1 + math.log(rope.factor) / math.log(original)) if rope.factor > 1 else 1.0
    return plain / torch.tensor(divisors, dtype=torch.float32), float(scale)


def _original(rope: RopeConfig) -> int:
    if rope.original_max_position_embeddings is None:
        raise ValueError(f"rope_type {rope.rope_type!r} needs original_max_position_embeddings")
    return rope.original_max_position_embeddings


_SCALINGS: dict[str, _Scaling] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
