"""Attention of rows with several new tokens to what is in their pages, the new tokens included.

FlashAttention-2 (Dao, 2023) over a block table: one program for a block of queries of one group of heads. A block holds
the heads of the group beside each other for every position, so that they share the tiles of keys and values.
"""

import triton
import triton.language as tl

from backend.attention.kernels.product import as_multiplied, product
from backend.attention.kernels.softmax import join, load_tile, page_slots


@triton.jit
def attend_tiles(
    queries,
    turned,
    weighted,
    best,
    total,
    query_positions,
    first,
    behind,
    kv_len,
    table,
    keys,
    values,
    kv_head,
    scale,
    MASKED: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    PAGE: tl.constexpr,
    WINDOW: tl.constexpr,
    LATENT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    """The keys from ``first`` to ``behind`` join; without MASKED every query sees all of them."""
    dims = tl.arange(0, BLOCK_D)
    front: tl.constexpr = DV if LATENT else D
    for n in range(first, behind, BLOCK_N):
        positions = n + tl.arange(0, BLOCK_N)
        inside = positions < kv_len
        slots = page_slots(table, positions, inside, PAGE, MASKED)
        key_tile = load_tile(keys + kv_head * D, slots, inside, dims, KV_HEADS * D, front, BLOCK_D, MASKED).to(
            queries.dtype
        )
        scores = tl.zeros([query_positions.shape[0], BLOCK_N], tl.float32)
        scores = product(queries, tl.trans(key_tile), scores, PRECISION)
        if LATENT:
            rest_dims = tl.arange(0, BLOCK_REST)
            rest_keys = keys + kv_head * D + DV
            rest_tile = load_tile(rest_keys, slots, inside, rest_dims, KV_HEADS * D, D - DV, BLOCK_REST, MASKED).to(
                queries.dtype
            )
            scores = product(turned, tl.trans(rest_tile), scores, PRECISION)
            value_tile = key_tile
        else:
            value_tile = load_tile(values + kv_head * DV, slots, inside, dims, KV_HEADS * DV, DV, BLOCK_D, MASKED).to(
                queries.dtype
            )
        visible = positions[None, :] <= query_positions[:, None]
        if WINDOW > 0:
            visible = visible & (positions[None, :] > query_positions[:, None] - WINDOW)
        weighted, best, total = join(
            scores, visible, value_tile, weighted, best, total, scale, MASKED, SOFT_CAP, PRECISION
        )
    return weighted, best, total


@triton.jit(do_not_specialize=["num_blocks", "num_rows"])
def prefill_blocks(
    query,  # [T, heads, D]
    keys,  # [slots, kv_heads, D]
    values,  # [slots, kv_heads, DV]; not read when LATENT
    out,  # [T, heads, DV]
    sinks,  # [heads]
    blocks,  # int32[2, programs]: row, first of its new tokens
    rows,  # int32[3, R]: place of its first new token among the T, number of new tokens, tokens with them
    page_table,  # int32[R, table_width]
    widths,  # int32[1]: table_width
    num_blocks,
    num_rows,
    query_stride,
    query_head_stride,
    scale,
    value_scale,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    PAGE: tl.constexpr,
    WINDOW: tl.constexpr,
    LATENT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PRECISION: tl.constexpr,
    HEADS: tl.constexpr,  # of the group, in one block
    POSITIONS: tl.constexpr,  # in one block
    BLOCK_M: tl.constexpr,  # at least HEADS * POSITIONS
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    block = tl.program_id(1)
    row = tl.load(blocks + block)
    first = tl.load(blocks + num_blocks + block)
    token = tl.load(rows + row)
    new = tl.load(rows + num_rows + row)
    kv_len = tl.load(rows + 2 * num_rows + row)
    kv_head = tl.program_id(0) % KV_HEADS
    entry = tl.arange(0, BLOCK_M)
    in_group = tl.program_id(0) // KV_HEADS * HEADS + entry % HEADS
    offset = first + entry // HEADS
    real = (in_group < GROUP) & (offset < new) & (entry < HEADS * POSITIONS)
    head = kv_head * GROUP + in_group
    query_positions = kv_len - new + offset

    dims = tl.arange(0, BLOCK_D)
    front: tl.constexpr = DV if LATENT else D
    at = query + (token + offset).to(tl.int64)[:, None] * query_stride + head[:, None] * query_head_stride
    queries = as_multiplied(tl.load(at + dims[None, :], mask=real[:, None] & (dims < front)[None, :], other=0), keys)
    turned = queries
    if LATENT:
        rest_dims = tl.arange(0, BLOCK_REST)
        rest_mask = real[:, None] & (rest_dims < D - DV)[None, :]
        turned = as_multiplied(tl.load(at + DV + rest_dims[None, :], mask=rest_mask, other=0), keys)

    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    if HAS_SINKS:
        best = tl.load(sinks + head, mask=real, other=0).to(tl.float32) * 1.4426950408889634
        total = tl.full([BLOCK_M], 1.0, tl.float32)
    weighted = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    oldest = kv_len - new + first  # the position of the block's first query
    behind = tl.minimum(kv_len, oldest + POSITIONS)
    table = page_table + row * tl.load(widths)
    if WINDOW > 0:
        masked_from = tl.maximum(oldest - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    else:
        masked_from = (oldest + 1) // BLOCK_N * BLOCK_N
        weighted, best, total = attend_tiles(
            queries, turned, weighted, best, total, query_positions, 0, masked_from, kv_len, table, keys, values,
            kv_head, scale, False, KV_HEADS, D, DV, PAGE, WINDOW, LATENT, SOFT_CAP, PRECISION,
            BLOCK_N, BLOCK_D, BLOCK_REST,
        )  # fmt: skip
    weighted, best, total = attend_tiles(
        queries, turned, weighted, best, total, query_positions, masked_from, behind, kv_len, table, keys, values,
        kv_head, scale, True, KV_HEADS, D, DV, PAGE, WINDOW, LATENT, SOFT_CAP, PRECISION,
        BLOCK_N, BLOCK_D, BLOCK_REST,
    )  # fmt: skip

    weighted = weighted * (value_scale / total)[:, None]
    place = out + ((token + offset).to(tl.int64) * (KV_HEADS * GROUP) + head)[:, None] * DV + dims[None, :]
    tl.store(place, weighted.to(out.dtype.element_ty), mask=real[:, None] & (dims < DV)[None, :])
