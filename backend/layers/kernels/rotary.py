"""From a layer's projected queries, keys and values to what attention reads, in one pass.

Queries and keys are normalised head by head (where the model does that) and turned by their positions; keys and values
also go to their places in the KV pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from backend.attention.base import KVTarget
from backend.attention.kernels.chain import after_previous, chained

if TYPE_CHECKING:
    from backend.layers.norm import RMSNorm
    from backend.layers.rotary import RotaryTables

HEADS_AT_ONCE = 4


@triton.jit
def _rotate_and_store(
    projected,  # [T, heads + 2 kv_heads, D]
    query_weight,  # [D]
    key_weight,  # [D]
    cos,  # [T, ROTATED / 2]
    sin,
    turned,  # [T, heads + kv_heads, D]
    keys,  # [slots, kv_heads, D]
    values,  # [slots, kv_heads, D]
    locations,  # int[T]
    stride,
    eps,
    key_scale,
    value_scale,
    limit,
    CHAINED: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    ROTATED: tl.constexpr,
    NORMS: tl.constexpr,
    OFFSET: tl.constexpr,
    EIGHT_BITS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    dims = tl.arange(0, BLOCK_D)
    is_query = head < HEADS
    is_turned = head < HEADS + KV_HEADS
    is_key = is_turned & (head >= HEADS)
    is_value = (head >= HEADS + KV_HEADS) & (head < HEADS + 2 * KV_HEADS)
    real = (head < HEADS + 2 * KV_HEADS)[:, None] & (dims < D)[None, :]
    HALF: tl.constexpr = ROTATED // 2
    partner = tl.where(dims < HALF, dims + HALF, tl.where(dims < ROTATED, dims - HALF, dims))

    after_previous(CHAINED)
    source = projected + token * stride + head[:, None] * D
    plain = tl.load(source + dims[None, :], mask=real, other=0.0)
    first = plain.to(tl.float32)
    second = tl.load(source + partner[None, :], mask=real & is_turned[:, None], other=0.0).to(tl.float32)
    if NORMS:
        inverse = tl.rsqrt(tl.sum(first * first, 1) / D + eps)[:, None]
        first = first * inverse * _factors(query_weight, key_weight, dims, is_query, D, OFFSET)
        second = second * inverse * _factors(query_weight, key_weight, partner, is_query, D, OFFSET)
    angle = token * HALF + dims % HALF
    cosine = tl.load(cos + angle, mask=dims < ROTATED, other=1.0).to(tl.float32)
    sine = tl.load(sin + angle, mask=dims < ROTATED, other=0.0).to(tl.float32)
    sine = tl.where(dims < HALF, -sine, sine)
    result = first * cosine[None, :] + second * sine[None, :]

    place = turned + (token * (HEADS + KV_HEADS) + head)[:, None] * D + dims[None, :]
    result = result.to(turned.dtype.element_ty)
    tl.store(place, result, mask=real & is_turned[:, None])
    slot = tl.load(locations + token).to(tl.int64) * KV_HEADS
    key_place = keys + (slot + head - HEADS)[:, None] * D + dims[None, :]
    value_place = values + (slot + head - HEADS - KV_HEADS)[:, None] * D + dims[None, :]
    if EIGHT_BITS:
        stored_key = tl.clamp(result.to(tl.float32) / key_scale, -limit, limit)
        stored_value = tl.clamp(plain.to(tl.float32) / value_scale, -limit, limit)
        tl.store(key_place, stored_key.to(keys.dtype.element_ty), mask=real & is_key[:, None])
        tl.store(value_place, stored_value.to(values.dtype.element_ty), mask=real & is_value[:, None])
    else:
        tl.store(key_place, result, mask=real & is_key[:, None])
        tl.store(value_place, plain, mask=real & is_value[:, None])


@triton.jit
def _factors(query_weight, key_weight, dims, is_query, D: tl.constexpr, OFFSET: tl.constexpr):
    """The norms' weights ``[heads, dims]``."""
    of_query = tl.load(query_weight + dims, mask=dims < D, other=0.0).to(tl.float32)
    of_key = tl.load(key_weight + dims, mask=dims < D, other=0.0).to(tl.float32)
    return tl.where(is_query[:, None], of_query[None, :], of_key[None, :]) + OFFSET


def rotate_and_store(
    projected: torch.Tensor, rotary: RotaryTables, target: KVTarget, norms: tuple[RMSNorm, RMSNorm] | None
) -> torch.Tensor:
    """See :class:`backend.layers.ops.LayerOps`."""
    tokens, all_heads, size = projected.shape
    kv_heads = target.keys.shape[-2]
    heads = all_heads - 2 * kv_heads
    turned = torch.empty(tokens, heads + kv_heads, size, dtype=projected.dtype, device=projected.device)
    query_norm, key_norm = norms or (None, None)
    block_d = triton.next_power_of_2(size)
    _rotate_and_store[(tokens, triton.cdiv(all_heads, HEADS_AT_ONCE))](
        projected,
        projected if query_norm is None else query_norm.weight,
        projected if key_norm is None else key_norm.weight,
        rotary.cos, rotary.sin, turned, target.keys, target.values, target.locations, projected.stride(0),
        0.0 if query_norm is None else query_norm.eps,
        target.key_scale, target.value_scale, torch.finfo(target.keys.dtype).max,
        HEADS=heads, KV_HEADS=kv_heads, D=size, ROTATED=2 * rotary.cos.shape[-1],
        NORMS=query_norm is not None, OFFSET=1.0 if query_norm is not None and query_norm.offset else 0.0,
        EIGHT_BITS=target.keys.dtype.itemsize == 1, BLOCK_H=HEADS_AT_ONCE, BLOCK_D=block_d,
        num_warps=max(HEADS_AT_ONCE * block_d // 512, 1), **chained(projected.device),
    )  # fmt: skip
    return turned
