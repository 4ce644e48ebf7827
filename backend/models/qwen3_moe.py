"""Qwen3 with a mixture of experts: Qwen3's attention, and experts in the layers that the configuration names."""

from __future__ import annotations

from torch import nn

from backend.layers import Attention, Experts, RMSNorm, Router, Routing, SparseMLP
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM, gated_mlp


class Qwen3MoeForCausalLM(DecoderLM):
    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        attention = Attention(config, index, qk_norm=RMSNorm)
        return DecoderLayer(config, attention, _sparse(config) if _is_sparse(config, index) else gated_mlp(config))


def _is_sparse(config: ModelConfig, index: int) -> bool:
    dense = config.raw.get("mlp_only_layers") or ()
    return index not in dense and (index + 1) % (config.raw.get("decoder_sparse_step") or 1) == 0


def _sparse(config: ModelConfig) -> SparseMLP:
    count = config.family("num_experts")
    routing = Routing(config.family("num_experts_per_tok"), bool(config.raw.get("norm_topk_prob")))
    experts = Experts(count, config.hidden_size, config.family("moe_intermediate_size"), config.hidden_act)
    return SparseMLP(Router(config.hidden_size, count, routing), experts)
