"""Grouped-query self-attention with rotary positions, and what the families vary in it."""

from __future__ import annotations

import torch
from torch import nn

from backend.attention.base import AttentionBackend, AttentionShape
from backend.layers.linear import Linear, MergedLinear
from backend.layers.norm import RMSNorm
from backend.layers.ops import layer_ops
from backend.layers.rotary import RotaryTables
from backend.loader.model_config import ModelConfig


class PagedAttention(nn.Module):
    """What every attention layer says of itself, so that a backend and a KV pool can be made for the model."""

    shape: AttentionShape


class Attention(PagedAttention):
    """One layer's attention; the backend owns the keys and values of everything before.

    ``fused``: the checkpoint has queries, keys and values in one matrix. ``qk_norm`` normalises each head's queries and
    keys before they are turned. ``scale`` is ``head_dim ** -0.5`` unless given.
    """

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        *,
        output_bias: bool | None = None,
        fused: bool = False,
        qk_norm: type[RMSNorm] | None = None,
        scale: float | None = None,
        soft_cap: float | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_dim
        self.layer = layer
        self.shape = AttentionShape(
            heads, kv_heads, size, scale or size**-0.5, config.windows[layer], soft_cap, has_sinks=sinks
        )
        parts = {"q_proj": heads * size, "k_proj": kv_heads * size, "v_proj": kv_heads * size}
        if fused:
            parts = {"qkv_proj": sum(parts.values())}
        self.qkv_proj = MergedLinear(config.hidden_size, parts, bias=config.attention_bias)
        with_bias = config.attention_bias if output_bias is None else output_bias
        self.o_proj = Linear(heads * size, config.hidden_size, bias=with_bias)
        self.q_norm = qk_norm(size, config.rms_norm_eps) if qk_norm else None
        self.k_norm = qk_norm(size, config.rms_norm_eps) if qk_norm else None
        self._norms = (self.q_norm, self.k_norm) if self.q_norm is not None and self.k_norm is not None else None
        self._rotate_and_store = layer_ops(self.o_proj.weight.device).rotate_and_store
        self.sinks = nn.Parameter(torch.empty(heads), requires_grad=False) if sinks else None

    def forward(
        self, x: torch.Tensor, rotary: RotaryTables, attention: AttentionBackend, kept: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[T, hidden]``, or only for the tokens ``kept`` (int64[K])."""
        heads, kv_heads = self.shape.num_heads, self.shape.num_kv_heads
        projected = self.qkv_proj(x).unflatten(-1, (-1, self.shape.head_dim))
        target = None if self._rotate_and_store is None else attention.target(self.layer)
        if self._rotate_and_store is not None and target is not None:
            turned = self._rotate_and_store(projected, rotary, target, self._norms)
            query, key = turned.split((heads, kv_heads), dim=1)
            value = projected[:, heads + kv_heads :]
            return self.o_proj(chosen(attention.attend_stored(self.layer, query, key, value, self.sinks), kept))
        rotated, value = projected.split((heads + kv_heads, kv_heads), dim=1)
        if self._norms is not None:
            query, key = rotated.split((heads, kv_heads), dim=1)
            rotated = torch.cat((self._norms[0](query), self._norms[1](key)), dim=1)
        query, key = rotary.rotate(rotated).split((heads, kv_heads), dim=1)
        return self.o_proj(chosen(attention.attend(self.layer, query, key, value, self.sinks), kept))


def chosen(x: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """The rows ``kept`` of ``x``; None: all."""
    return x if kept is None else x[kept]
