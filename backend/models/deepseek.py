"""DeepSeek-V2 and V3 (R1 as well): latent attention; dense layers first, then experts chosen by groups, some shared."""

from __future__ import annotations

import torch
from torch import nn

from backend.layers import SIGMOID, Experts, GatedMLP, LatentAttention, Router, Routing, SparseMLP
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM, gated_mlp


class DeepseekV2ForCausalLM(DecoderLM):
    corrected = False  # whether a learned correction takes part in the choice of experts

    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        attention = LatentAttention(config, index, interleaved=bool(config.raw.get("rope_interleave", True)))
        dense = index < config.family("first_k_dense_replace")
        return DecoderLayer(config, attention, gated_mlp(config) if dense else self._sparse(config))

    def rotated_size(self, config: ModelConfig) -> int:
        return int(config.family("qk_rope_head_dim"))

    def routing(self, config: ModelConfig) -> Routing:
        """V2: softmax; a group is as good as its best expert."""
        grouped = config.raw.get("topk_method") == "group_limited_greedy"
        return Routing(
            top_k=config.family("num_experts_per_tok"),
            renormalise=bool(config.raw.get("norm_topk_prob")),
            scale=float(config.raw.get("routed_scaling_factor") or 1.0),
            groups=config.family("n_group") if grouped else 1,
            top_groups=config.family("topk_group") if grouped else 1,
        )

    def may_ignore(self, name: str) -> bool:
        """Layers behind the last one predict further tokens; they are no part of the model itself."""
        prefix, _, rest = name.partition("model.layers.")
        behind = not prefix and rest and int(rest.partition(".")[0]) >= self.config.num_layers
        return bool(behind) or super().may_ignore(name)

    def _sparse(self, config: ModelConfig) -> SparseMLP:
        count, inner = config.family("n_routed_experts"), config.family("moe_intermediate_size")
        router = Router(config.hidden_size, count, self.routing(config), correction=self.corrected, dtype=torch.float32)
        shared = config.raw.get("n_shared_experts")
        return SparseMLP(
            router,
            Experts(count, config.hidden_size, inner, config.hidden_act),
            GatedMLP(config.hidden_size, inner * shared, config.hidden_act) if shared else None,
        )


class DeepseekV3ForCausalLM(DeepseekV2ForCausalLM):
    corrected = True

    def routing(self, config: ModelConfig) -> Routing:
        """V3: sigmoid and a correction; a group is as good as its two best experts."""
        return Routing(
            top_k=config.family("num_experts_per_tok"),
            renormalise=bool(config.raw.get("norm_topk_prob", True)),
            scores=SIGMOID,
            scale=float(config.raw.get("routed_scaling_factor") or 1.0),
            groups=config.family("n_group"),
            top_groups=config.family("topk_group"),
            group_members=2,
        )
