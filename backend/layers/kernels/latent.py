"""From what was projected to what latent attention gets: its vector normalised, queries and key turned, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained

if TYPE_CHECKING:
    from backend.layers.norm import RMSNorm
    from backend.layers.rotary import RotaryTables


@triton.jit
def latent_inputs(
    turned,  # [T, HEADS, 2 HALF]: the queries' parts that positions turn
    projected,  # [T, LATENT + 2 HALF]
    weight,  # [LATENT]
    cos,  # [T, HALF]
    sin,
    query,  # [T, HEADS, LATENT + 2 HALF]: gets its end
    key,  # [T, LATENT + 2 HALF]
    turned_stride,
    head_stride,
    projected_stride,
    eps,
    CHAINED: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    LATENT: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    SIZE: tl.constexpr = LATENT + 2 * HALF
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, BLOCK_H)[:, None]
    pair = tl.arange(0, BLOCK_R)
    dims = tl.arange(0, BLOCK_L)
    there = pair < HALF
    first = 2 * pair if INTERLEAVED else pair
    second = first + 1 if INTERLEAVED else first + HALF
    factors = tl.load(weight + dims, mask=dims < LATENT, other=0.0).to(tl.float32)
    after_previous(CHAINED)
    cosine = tl.load(cos + token * HALF + pair, mask=there, other=0.0).to(tl.float32)
    sine = tl.load(sin + token * HALF + pair, mask=there, other=0.0).to(tl.float32)

    source = turned + token * turned_stride + head * head_stride
    real = (head < HEADS) & there[None, :]
    a = tl.load(source + first[None, :], mask=real, other=0.0).to(tl.float32)
    b = tl.load(source + second[None, :], mask=real, other=0.0).to(tl.float32)
    place = query + (token * HEADS + head) * SIZE + LATENT + pair[None, :]
    tl.store(place, (a * cosine - b * sine).to(query.dtype.element_ty), mask=real)
    tl.store(place + HALF, (b * cosine + a * sine).to(query.dtype.element_ty), mask=real)

    row = projected + token * projected_stride
    numbers = tl.load(row + dims, mask=dims < LATENT, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(numbers * numbers, 0) / LATENT + eps)
    target = key + token * SIZE
    tl.store(target + dims, (numbers * inverse * factors).to(key.dtype.element_ty), mask=dims < LATENT)
    a = tl.load(row + LATENT + first, mask=there, other=0.0).to(tl.float32)
    b = tl.load(row + LATENT + second, mask=there, other=0.0).to(tl.float32)
    tl.store(target + LATENT + pair, (a * cosine - b * sine).to(key.dtype.element_ty), mask=there)
    tl.store(target + LATENT + HALF + pair, (b * cosine + a * sine).to(key.dtype.element_ty), mask=there)


def latent_key(
    turned: torch.Tensor,
    projected: torch.Tensor,
    norm: RMSNorm,
    rotary: RotaryTables,
    query: torch.Tensor,
    *,
    interleaved: bool,
) -> torch.Tensor:
    """See :class:`backend.layers.ops.LayerOps`."""
    tokens, heads, rotated = turned.shape
    latent = projected.shape[1] - rotated
    key = projected.new_empty(tokens, 1, latent + rotated)
    latent_inputs[(tokens,)](
        turned, projected, norm.weight, rotary.cos, rotary.sin, query, key,
        turned.stride(0), turned.stride(1), projected.stride(0), norm.eps,
        HEADS=heads, HALF=rotated // 2, LATENT=latent, INTERLEAVED=interleaved,
        BLOCK_H=triton.next_power_of_2(heads), BLOCK_R=triton.next_power_of_2(rotated // 2),
        BLOCK_L=triton.next_power_of_2(latent), num_warps=4, **chained(projected.device),
    )  # fmt: skip
    return key
