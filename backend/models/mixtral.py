"""Mixtral: Mistral's decoder with a mixture of experts in each layer."""

from __future__ import annotations

from torch import nn

from backend.layers import Attention, Experts, Router, Routing, SparseMLP
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM


class MixtralForCausalLM(DecoderLM):
    renames = {
        ".block_sparse_moe.": ".mlp.",
        ".w1.weight": ".gate_proj.weight",
        ".w2.weight": ".down_proj.weight",
        ".w3.weight": ".up_proj.weight",
    }

    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        count = config.family("num_local_experts")
        routing = Routing(config.family("num_experts_per_tok"), renormalise=True)
        experts = Experts(count, config.hidden_size, config.intermediate_size, config.hidden_act)
        mlp = SparseMLP(Router(config.hidden_size, count, routing), experts)
        return DecoderLayer(config, Attention(config, index), mlp)
