"""Llama 1-3, Mistral and models of the same shape (SmolLM2, ...): GQA, RoPE, SwiGLU, a window where one is set."""

from __future__ import annotations

from torch import nn

from backend.layers import Attention
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM, gated_mlp


class LlamaForCausalLM(DecoderLM):
    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        return DecoderLayer(config, Attention(config, index), gated_mlp(config))
