"""gpt-oss: experts with biases and a clamped SwiGLU; attention with sinks, every other layer with a window."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from backend.layers import Attention, Experts, Router, Routing, SparseMLP
from backend.layers.experts import ExpertWeights
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM


class ClampedExperts(Experts):
    """``down((up + 1) * gate * sigmoid(alpha * gate))``, both clamped; rows of ``gate_up`` are gate, up, gate, ..."""

    def __init__(self, config: ModelConfig, count: int) -> None:
        hidden, inner = config.hidden_size, config.intermediate_size
        super().__init__(count, hidden, inner, config.hidden_act)
        self.gate_up_bias = nn.Parameter(torch.empty(count, 2 * inner), requires_grad=False)
        self.down_bias = nn.Parameter(torch.empty(count, hidden), requires_grad=False)
        self.alpha = float(config.raw.get("swiglu_alpha") or 1.702)
        self.limit = float(config.raw.get("swiglu_limit") or 7.0)

    def places(self, path: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The checkpoint has all experts in one tensor, with the input dimension first."""
        yield f"{path}.gate_up_proj", self.gate_up.data.transpose(1, 2)
        yield f"{path}.gate_up_proj_bias", self.gate_up_bias.data
        yield f"{path}.down_proj", self.down.data.transpose(1, 2)
        yield f"{path}.down_proj_bias", self.down_bias.data

    def matrices(self) -> ExpertWeights:
        return ExpertWeights(
            self.gate_up,
            self.down,
            "clamped_swiglu",
            gate_up_bias=self.gate_up_bias,
            down_bias=self.down_bias,
            interleaved=True,
            alpha=self.alpha,
            limit=self.limit,
        )

    def expert(self, index: int, x: torch.Tensor) -> torch.Tensor:
        gate, up = F.linear(x, self.gate_up[index], self.gate_up_bias[index]).unflatten(-1, (-1, 2)).unbind(-1)
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        inner = (up + 1) * gate * torch.sigmoid(self.alpha * gate)
        return F.linear(inner, self.down[index], self.down_bias[index])


class GptOssForCausalLM(DecoderLM):
    renames = {".mlp.router.": ".mlp.gate."}

    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        count = config.family("num_local_experts")
        routing = Routing(config.family("num_experts_per_tok"), renormalise=True)
        router = Router(config.hidden_size, count, routing, bias=True)
        attention = Attention(config, index, sinks=True)
        return DecoderLayer(config, attention, SparseMLP(router, ClampedExperts(config, count)))
