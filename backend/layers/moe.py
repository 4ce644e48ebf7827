"""A mixture of experts: each token goes through a few of many feed-forward blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from backend.layers.activation import activation
from backend.layers.experts import ExpertWeights
from backend.layers.mlp import GatedMLP
from backend.layers.ops import layer_ops
from backend.layers.routing import Router


class Experts(nn.Module):
    """The experts' matrices side by side: ``gate_up`` ``[E, 2 I, hidden]`` and ``down`` ``[E, hidden, I]``."""

    def __init__(self, count: int, hidden_size: int, intermediate_size: int, act: str) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(count, 2 * intermediate_size, hidden_size), requires_grad=False)
        self.down = nn.Parameter(torch.empty(count, hidden_size, intermediate_size), requires_grad=False)
        self.act = act
        self.activation = activation(act)
        self._at_once = layer_ops(self.down.device).experts

    @property
    def captures(self) -> bool:
        """Whether the host never waits to know how many tokens an expert has."""
        return self._at_once is not None

    def places(self, path: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The checkpoint's names at ``path``, with the part that each fills: one set of matrices for each expert."""
        for expert, (gate_up, down) in enumerate(zip(self.gate_up.data, self.down.data, strict=True)):
            gate, up = gate_up.chunk(2)
            yield f"{path}.{expert}.gate_proj.weight", gate
            yield f"{path}.{expert}.up_proj.weight", up
            yield f"{path}.{expert}.down_proj.weight", down

    def forward(self, x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Sum of the chosen experts' outputs ``[T, hidden]``; ``weights`` and ``ids`` are ``[T, top_k]``.

        Pairs of token and expert are sorted by expert, so that every expert is one product over its tokens.
        """
        if self._at_once is not None:
            return self._at_once(x, weights, ids, self.matrices())
        order = ids.flatten().argsort(stable=True)
        sorted_x = x[order // ids.shape[1]]
        computed = torch.empty_like(sorted_x)
        start = 0
        for expert, count in enumerate(ids.flatten().bincount(minlength=len(self.down)).tolist()):
            if count:
                computed[start : start + count] = self.expert(expert, sorted_x[start : start + count])
                start += count
        # Back in the tokens' order, so that a token's experts are always added up in the same order.
        outputs = torch.empty_like(computed)
        outputs[order] = computed
        return (outputs.view(*ids.shape, -1) * weights[..., None]).sum(1).to(x.dtype)

    def matrices(self) -> ExpertWeights:
        """All experts, for a kernel that computes them at once."""
        return ExpertWeights(self.gate_up, self.down, self.act)

    def expert(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """One expert's output for its tokens."""
        gate, up = F.linear(x, self.gate_up[index]).chunk(2, dim=-1)
        return F.linear(self.activation(gate) * up, self.down[index])


class SparseMLP(nn.Module):
    """Router, experts, and what some families add for every token: shared experts."""

    def __init__(self, router: Router, experts: Experts, shared: GatedMLP | None = None) -> None:
        super().__init__()
        self.gate = router
        self.experts = experts
        self.shared_experts = shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.experts(x, *self.gate(x))
        return out if self.shared_experts is None else out + self.shared_experts(x)
