"""What a mixture of experts is computed from."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """All experts' matrices, and what stands between the two products of each."""

    gate_up: torch.Tensor  # [experts, 2 I, hidden]
    down: torch.Tensor  # [experts, hidden, I]
    act: str  # the configuration's name, or "clamped_swiglu": gpt-oss's, which alpha and limit belong to
    gate_up_bias: torch.Tensor | None = None  # [experts, 2 I]
    down_bias: torch.Tensor | None = None  # [experts, hidden]
    interleaved: bool = False  # rows of gate_up are gate, up, gate, ... instead of all gates first
    alpha: float = 1.0
    limit: float = 0.0
