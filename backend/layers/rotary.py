"""Rotary position embedding (Su et al., 2021), half-split layout, for all positions that a server may see."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backend.layers.rope_scaling import frequencies
from backend.loader.rope_config import RopeConfig


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """Cosines and sines of one step's positions, ``[T, 1, rotated / 2]`` in the model's dtype; shared by layers.

    ``rotated`` is the head size, or less where a model leaves the end of each head as it is. ``wide`` are the factors
    of both halves, ``[T, 1, rotated]``, with the signs in: half the operations, which is what counts on the CPU.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    wide: tuple[torch.Tensor, torch.Tensor] | None = None

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate heads ``[T, heads, head_dim]``."""
        half = self.cos.shape[-1]
        if self.wide is not None and x.shape[-1] == 2 * half:
            cos, sin = self.wide
            return (x * cos).add_(x.roll(half, -1).mul_(sin))
        first, second = x[..., :half], x[..., half : 2 * half]
        turned = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        return torch.cat((*turned, x[..., 2 * half :]), dim=-1)


class Rotary:
    """Tables for all positions, computed once in float32."""

    def __init__(
        self, rope: RopeConfig, head_dim: int, max_positions: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        per_position, scale = frequencies(rope, int(head_dim * rope.partial_rotary_factor), max_positions)
        angles = torch.outer(torch.arange(max_positions, dtype=torch.float32), per_position)
        self._cos = (angles.cos() * scale).to(device, dtype)
        self._sin = (angles.sin() * scale).to(device, dtype)

    def tables(self, positions: torch.Tensor) -> RotaryTables:
        """Tables of ``positions`` (int64[T])."""
        cos, sin = self._cos[positions, None], self._sin[positions, None]
        if cos.device.type != "cpu":
            return RotaryTables(cos, sin)
        return RotaryTables(cos, sin, (torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)))
