"""Qwen3, dense: Llama's decoder with normalised queries and keys and a head size of its own."""

from __future__ import annotations

from torch import nn

from backend.layers import Attention, RMSNorm
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM, gated_mlp


class Qwen3ForCausalLM(DecoderLM):
    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        return DecoderLayer(config, Attention(config, index, qk_norm=RMSNorm), gated_mlp(config))
