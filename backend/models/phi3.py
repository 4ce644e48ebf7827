"""Phi-3 and Phi-4: Llama's decoder, with merged matrices in the checkpoint, LongRoPE and partly turned heads."""

from __future__ import annotations

from torch import nn

from backend.layers import Attention
from backend.loader.model_config import ModelConfig
from backend.models.decoder import DecoderLayer, DecoderLM, gated_mlp


class Phi3ForCausalLM(DecoderLM):
    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        return DecoderLayer(config, Attention(config, index, fused=True), gated_mlp(config, fused=True))
