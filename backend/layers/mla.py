"""Multi-head latent attention (DeepSeek-V2, 2024) over its compressed cache.

One latent vector a token stands for the keys and values of all heads. The cache holds it, with the part of the key that
positions turn, as the single key of grouped-query attention; its front is the value. The matrices that would unfold it
are applied to the queries and to the outcome instead ("absorbed"), so nothing is ever unfolded for the whole context.
"""

from __future__ import annotations

import torch

from backend.attention.base import AttentionBackend, AttentionShape
from backend.layers.attention import PagedAttention, chosen
from backend.layers.linear import Linear
from backend.layers.norm import RMSNorm
from backend.layers.ops import layer_ops
from backend.layers.rope_scaling import yarn_magnitude
from backend.layers.rotary import RotaryTables
from backend.loader.model_config import ModelConfig

LATENT_NORM_EPS = 1e-6


class LatentAttention(PagedAttention):
    """``interleaved``: the checkpoint's rotary pairs are neighbours, not halves apart."""

    def __init__(self, config: ModelConfig, layer: int, *, interleaved: bool) -> None:
        super().__init__()
        self.layer, self.interleaved = layer, interleaved
        heads, rank = config.num_heads, config.family("q_lora_rank") if config.raw.get("q_lora_rank") else None
        self.latent = config.family("kv_lora_rank")
        self.turned, self.unturned = config.family("qk_rope_head_dim"), config.family("qk_nope_head_dim")
        value_dim, query_size = config.family("v_head_dim"), heads * (self.turned + self.unturned)
        hidden, bias = config.hidden_size, config.attention_bias
        if rank is None:
            self.q_proj = Linear(hidden, query_size)
        else:
            self.q_a_proj = Linear(hidden, rank, bias=bias)
            self.q_a_layernorm = RMSNorm(rank, LATENT_NORM_EPS)
            self.q_b_proj = Linear(rank, query_size)
        self.has_query_rank = rank is not None
        self.kv_a_proj_with_mqa = Linear(hidden, self.latent + self.turned, bias=bias)
        self.kv_a_layernorm = RMSNorm(self.latent, LATENT_NORM_EPS)
        self.kv_b_proj = Linear(self.latent, heads * (self.unturned + value_dim), lends_weight=True)
        self.o_proj = Linear(heads * value_dim, hidden, bias=bias)
        self._latent_key = layer_ops(self.o_proj.weight.device).latent_key
        self.shape = AttentionShape(heads, 1, self.latent + self.turned, self._scale(config), value_dim=self.latent)

    def _scale(self, config: ModelConfig) -> float:
        """YaRN's factor on the scores covers the part that positions turn by the tables; the rest of it is here."""
        weight = config.rope.raw.get("mscale_all_dim")
        magnitude = yarn_magnitude(config.rope.factor, weight) if weight else 1.0
        return float((self.turned + self.unturned) ** -0.5 * magnitude**2)

    def forward(
        self, x: torch.Tensor, rotary: RotaryTables, attention: AttentionBackend, kept: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[T, hidden]``, or only for the tokens ``kept`` (int64[K])."""
        heads = self.shape.num_heads
        to_key, to_value = self.kv_b_proj.weight.view(heads, -1, self.latent).split(
            (self.unturned, self.kv_b_proj.weight.shape[0] // heads - self.unturned), dim=1
        )
        plain, turned = self._queries(x).unflatten(-1, (heads, -1)).split((self.unturned, self.turned), dim=-1)
        projected = self.kv_a_proj_with_mqa(x)
        query = x.new_empty(len(x), heads, self.shape.head_dim)
        _per_head(plain, to_key, query[..., : self.latent])
        key = self._latent_key(turned, projected, self.kv_a_layernorm, rotary, query, interleaved=self.interleaved)
        attended = chosen(attention.attend(self.layer, query, key, key[..., : self.latent]), kept)
        values = attended.new_empty(len(attended), heads, to_value.shape[1])
        _per_head(attended.unflatten(-1, (heads, -1)), to_value.transpose(1, 2), values)
        return self.o_proj(values.flatten(1))

    def _queries(self, x: torch.Tensor) -> torch.Tensor:
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.has_query_rank else self.q_proj(x)


def _per_head(x: torch.Tensor, matrices: torch.Tensor, out: torch.Tensor) -> None:
    """``out`` ``[T, H, B]`` becomes ``x`` ``[T, H, A]`` times ``matrices`` ``[H, A, B]``, head by head."""
    torch.bmm(x.transpose(0, 1), matrices, out=out.transpose(0, 1))
