"""Qwen2 and Qwen2.5: Llama's decoder with a bias on queries, keys and values alone."""

from __future__ import annotations

from torch import nn

from backend.layers import Attention
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM, gated_mlp


class Qwen2ForCausalLM(DecoderLM):
    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        return DecoderLayer(config, Attention(config, index, output_bias=False), gated_mlp(config))
