"""Linear layers, one matrix each, also where the checkpoint has several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class Linear(nn.Module):
    """``y = x W^T + b``; ``weight`` is ``[out_features, in_features]``."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


class MergedLinear(Linear):
    """Several linear layers of one input, their outputs side by side.

    ``part_sizes`` are the output sizes in order; a checkpoint's separate matrices are loaded into their rows.
    """

    def __init__(self, in_features: int, part_sizes: Sequence[int], *, bias: bool = False) -> None:
        super().__init__(in_features, sum(part_sizes), bias=bias)
        self.part_sizes = tuple(part_sizes)

    def rows_of(self, part: int) -> slice:
        """The rows of ``weight`` and ``bias`` that belong to ``part``."""
        start = sum(self.part_sizes[:part])
        return slice(start, start + self.part_sizes[part])
