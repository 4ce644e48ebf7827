"""Llama 1-3 and models of the same shape (SmolLM2, ...): pre-norm decoder with GQA, RoPE and SwiGLU."""

from __future__ import annotations

import torch
from torch import nn

from backend.attention.base import AttentionBackend
from backend.layers import Attention, Embedding, GatedMLP, LMHead, RMSNorm, Rotary, RotaryTables
from backend.loader.model_config import ModelConfig
from backend.models.base import CausalLM


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=config.mlp_bias)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: torch.Tensor, rotary: RotaryTables, attention: AttentionBackend) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, attention)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Everything but the head; ``model.`` in the checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        weight = self.embed_tokens.weight
        self.rotary = Rotary(config.rope, config.head_dim, config.max_position_embeddings, weight.dtype, weight.device)

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, attention: AttentionBackend) -> torch.Tensor:
        x = self.embed_tokens(ids)
        rotary = self.rotary.tables(positions)
        for layer in self.layers:
            x = layer(x, rotary, attention)
        return self.norm(x)


class LlamaForCausalLM(CausalLM):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = LMHead(config.vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.lm_head.tie(self.model.embed_tokens)

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, attention: AttentionBackend) -> torch.Tensor:
        return self.model(ids, positions, attention)
