"""Rotary position embedding (Su et al., 2021), half-split layout, with Llama 3's frequency scaling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from backend.loader.model_config import RopeConfig


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """Cosines and sines of one step's positions, ``[T, 1, head_dim / 2]`` in the model's dtype; shared by all
    layers.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate heads ``[T, heads, head_dim]``."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * self.cos - second * self.sin, second * self.cos + first * self.sin), dim=-1)


class Rotary:
    """Tables for all positions, computed once in float32."""

    def __init__(
        self, rope: RopeConfig, head_dim: int, max_positions: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        angles = torch.outer(torch.arange(max_positions, dtype=torch.float32), inverse_frequencies(rope, head_dim))
        self._cos = angles.cos().to(device, dtype)
        self._sin = angles.sin().to(device, dtype)

    def tables(self, positions: torch.Tensor) -> RotaryTables:
        """Tables of ``positions`` (int64[T])."""
        return RotaryTables(self._cos[positions, None], self._sin[positions, None])


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """Rotation per position of each of the ``head_dim / 2`` planes, float32.

    ``ValueError`` for an unknown ``rope_type``.
    """
    plain = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.rope_type == "default":
        return plain
    if rope.rope_type == "linear":
        return plain / rope.factor
    if rope.rope_type == "llama3":
        return _llama3(plain, rope)
    raise ValueError(f"rope_type {rope.rope_type!r} is not supported; known: default, linear, llama3")


def _llama3(plain: torch.Tensor, rope: RopeConfig) -> torch.Tensor:
    """Llama 3.1: slow planes are stretched by ``factor``, fast ones kept, those between interpolated."""
    original = rope.original_max_position_embeddings
    if original is None:
        raise ValueError("rope_type 'llama3' needs original_max_position_embeddings")
    wavelength = 2 * math.pi / plain
    smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - smooth) * plain / rope.factor + smooth * plain
    slow = wavelength > original / rope.low_freq_factor
    fast = wavelength < original / rope.high_freq_factor
    return torch.where(slow, plain / rope.factor, torch.where(fast, plain, blended))
