"""Which experts a token goes to, and how much each counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from backend.layers.ops import layer_ops

Scores = Callable[[torch.Tensor], torch.Tensor]

SOFTMAX: Scores = partial(torch.softmax, dim=-1)
SIGMOID: Scores = torch.sigmoid


@dataclass(frozen=True, slots=True)
class Routing:
    """The rule of choice. With ``groups``, only experts of the ``top_groups`` best groups can be chosen.

    A group is as good as the sum of its ``group_members`` best experts (DeepSeek-V2 takes one, V3 two).
    """

    top_k: int
    renormalise: bool  # the chosen weights sum to one
    scores: Scores = SOFTMAX
    scale: float = 1.0
    groups: int = 1
    top_groups: int = 1
    group_members: int = 1

    def choose(self, logits: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights float32 and expert numbers int64, both ``[T, top_k]``, for ``logits`` ``[T, experts]``.

        ``bias`` takes part in the choice and not in the weights.
        """
        scores = self.scores(logits.float())
        choice = scores if bias is None else scores + bias
        if self.groups > 1:
            choice = self._in_best_groups(choice)
        ids = choice.topk(self.top_k, dim=-1).indices
        weights = scores.gather(1, ids)
        if self.renormalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * self.scale, ids

    def _in_best_groups(self, choice: torch.Tensor) -> torch.Tensor:
        grouped = choice.unflatten(-1, (self.groups, -1))
        goodness = grouped.topk(self.group_members, dim=-1).values.sum(-1)
        best = goodness.topk(self.top_groups, dim=-1).indices
        excluded = torch.ones_like(goodness, dtype=torch.bool).scatter_(1, best, value=False)
        return grouped.masked_fill(excluded[..., None], float("-inf")).flatten(1)


class Router(nn.Module):
    """``weight`` is ``[experts, hidden]``; computes in ``dtype``, the model's unless given."""

    def __init__(
        self,
        hidden_size: int,
        experts: int,
        routing: Routing,
        *,
        bias: bool = False,
        correction: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.routing = routing
        self.weight = nn.Parameter(torch.empty(experts, hidden_size, dtype=dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(experts, dtype=dtype), requires_grad=False) if bias else None
        self.e_score_correction_bias = (
            nn.Parameter(torch.empty(experts, dtype=torch.float32), requires_grad=False) if correction else None
        )
        ops = layer_ops(self.weight.device)
        self._product, self._choose = ops.linear, ops.choose

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and expert numbers ``[T, top_k]`` for ``x`` ``[T, hidden]``."""
        logits = self._product(x, self.weight, self.bias)
        return self._choose(logits, self.routing, self.e_score_correction_bias)
