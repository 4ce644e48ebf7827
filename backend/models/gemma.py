"""Gemma 1, 2 and 3 (text): scaled embeddings, norms around one, and from Gemma 2 on a norm behind each block too."""

from __future__ import annotations

import torch
from torch import nn

from backend.attention.base import AttentionBackend
from backend.layers import Attention, OffsetRMSNorm, RotaryTables, chosen
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM, gated_mlp


class GemmaLayer(DecoderLayer):
    """Gemma 1's: the usual layer with Gemma's norms."""

    def __init__(self, config: ModelConfig, attention: nn.Module) -> None:
        super().__init__(config, attention, gated_mlp(config))
        self.input_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)


class SandwichLayer(GemmaLayer):
    """Gemma 2's and 3's: a norm before and one behind each block."""

    def __init__(self, config: ModelConfig, attention: nn.Module) -> None:
        super().__init__(config, attention)
        self.pre_feedforward_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        rotary: RotaryTables,
        attention: AttentionBackend,
        kept: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attended = self.self_attn(self.input_layernorm(x, delta), rotary, attention, kept)
        x, attended = chosen(x, kept), self.post_attention_layernorm(attended)
        return x, self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x, attended)))


class GemmaForCausalLM(DecoderLM):
    norm = OffsetRMSNorm

    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        return GemmaLayer(config, Attention(config, index))

    def embedding_scale(self, config: ModelConfig) -> float:
        return float(config.hidden_size) ** 0.5


class Gemma2ForCausalLM(GemmaForCausalLM):
    """Scores and logits are capped; every other layer sees a window."""

    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        cap = config.raw.get("attn_logit_softcapping")
        return SandwichLayer(config, Attention(config, index, scale=_query_scale(config), soft_cap=cap))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits, cap = super().logits(hidden).float(), self.config.raw.get("final_logit_softcapping")
        return logits if cap is None else torch.tanh(logits / cap) * cap


class Gemma3ForCausalLM(Gemma2ForCausalLM):
    """Queries and keys are normalised; five layers in six see a window and turn by frequencies of their own."""

    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        attention = Attention(
            config,
            index,
            qk_norm=OffsetRMSNorm,
            scale=_query_scale(config),
            soft_cap=config.raw.get("attn_logit_softcapping"),
        )
        return SandwichLayer(config, attention)


def _query_scale(config: ModelConfig) -> float:
    return float(config.family("query_pre_attn_scalar", int | float)) ** -0.5
