"""Grouped-query self-attention with rotary positions and, where the model has it, normalised queries and keys."""

from __future__ import annotations

import torch
from torch import nn

from backend.attention.base import AttentionBackend
from backend.layers.linear import Linear, MergedLinear
from backend.layers.norm import RMSNorm
from backend.layers.rotary import RotaryTables
from backend.loader.model_config import ModelConfig


class Attention(nn.Module):
    """One layer's attention; the backend owns the keys and values of everything before."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        sizes = (self.num_heads * self.head_dim, *[self.num_kv_heads * self.head_dim] * 2)
        self.qkv_proj = MergedLinear(config.hidden_size, sizes, bias=config.attention_bias)
        self.o_proj = Linear(sizes[0], config.hidden_size, bias=config.attention_bias)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: torch.Tensor, rotary: RotaryTables, attention: AttentionBackend) -> torch.Tensor:
        heads = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim))
        rotated, value = heads.split((self.num_heads + self.num_kv_heads, self.num_kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = rotated.split((self.num_heads, self.num_kv_heads), dim=1)
            rotated = torch.cat((self.q_norm(query), self.k_norm(key)), dim=1)
        query, key = rotary.rotate(rotated).split((self.num_heads, self.num_kv_heads), dim=1)
        return self.o_proj(attention.attend(self.layer, query, key, value))
