"""Linear layers, one matrix each, also where the checkpoint has several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from backend.layers.ops import layer_ops


class Linear(nn.Module):
    """``y = x W^T + b``; ``weight`` is ``[out_features, in_features]``.

    ``lends_weight``: others read the matrix, so it must stay as it is.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False, lends_weight: bool = False) -> None:
        super().__init__()
        self.lends_weight = lends_weight
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self.product = layer_ops(self.weight.device).linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x, self.weight, self.bias)


class MergedLinear(Linear):
    """Several linear layers of one input, their outputs side by side.

    ``parts`` are the checkpoint's layers, in order, with their output sizes; each is loaded into its rows.
    """

    def __init__(self, in_features: int, parts: Mapping[str, int], *, bias: bool = False) -> None:
        super().__init__(in_features, sum(parts.values()), bias=bias)
        self.parts = dict(parts)

    def places(self, path: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The checkpoint's names for the layer at ``path``, with the rows that each fills."""
        parent = path.rpartition(".")[0]
        for name, parameter in self.named_parameters(recurse=False):
            rows = parameter.data.split(tuple(self.parts.values()))
            yield from ((f"{parent}.{part}.{name}", piece) for part, piece in zip(self.parts, rows, strict=True))
