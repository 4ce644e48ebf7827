"""The gated feed-forward block (SwiGLU and relatives; Shazeer, 2020)."""

from __future__ import annotations

import torch
from torch import nn

from backend.layers.linear import Linear, MergedLinear
from backend.layers.ops import layer_ops


class GatedMLP(nn.Module):
    """``down(act(gate(x)) * up(x))``. ``fused``: the checkpoint has gate and up in one matrix already."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, act: str, *, bias: bool = False, fused: bool = False
    ) -> None:
        super().__init__()
        parts = {"gate_proj": intermediate_size, "up_proj": intermediate_size}
        if fused:
            parts = {"gate_up_proj": 2 * intermediate_size}
        self.gate_up_proj = MergedLinear(hidden_size, parts, bias=bias)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=bias)
        self.gate = layer_ops(self.down_proj.weight.device).gate(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.gate(self.gate_up_proj(x)))
