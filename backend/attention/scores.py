"""Scaled dot-product attention with what some families add to it: capped scores, sinks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from backend.attention.base import AttentionShape


def attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    shape: AttentionShape,
    *,
    mask: torch.Tensor | None,
    causal: bool = False,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attend with ``[B, H, Q, D]`` to ``[B, H, K, D]``.

    ``mask`` is added to the scores; ``causal`` is for as many queries as keys, and no mask. ``sinks`` is ``[H, Q]`` or
    ``[H, 1]``.
    """
    if shape.soft_cap is None and sinks is None:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal, scale=shape.scale)
    scores = (query @ keys.transpose(-1, -2)).float() * shape.scale
    if shape.soft_cap is not None:
        scores = torch.tanh(scores / shape.soft_cap) * shape.soft_cap
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill_(hidden, float("-inf"))
    if mask is not None:
        scores = scores + mask
    return _softmax(scores, sinks).to(values.dtype) @ values


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Over the keys; a sink takes its share and is dropped."""
    if sinks is None:
        return scores.softmax(-1)
    column = sinks.float()[None, :, :, None].expand(*scores.shape[:-1], 1)
    return torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
