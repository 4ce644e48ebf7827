"""Root-mean-square normalisation (Zhang and Sennrich, 2019)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from backend.layers.ops import layer_ops


class RMSNorm(nn.Module):
    """Normalises the last dimension; computes in float32 inside, whatever the dtype."""

    offset: ClassVar[bool] = False  # whether the weight is what is added to one

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.eps = eps
        self._rms_norm = layer_ops(self.weight.device).rms_norm

    def forward(self, x: torch.Tensor, delta: torch.Tensor | None = None) -> torch.Tensor:
        """With ``delta`` that is added to ``x`` before, in place."""
        return self._rms_norm(x, self.weight, self.eps, offset=self.offset, delta=delta)


class OffsetRMSNorm(RMSNorm):
    """Gemma's: the stored weight is what is added to one. Multiplies in float32, before the result is rounded."""

    offset = True
