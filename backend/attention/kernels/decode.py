"""Attention of rows with one new token: parts of a row's keys side by side, then one result of the parts.

The split over keys is Flash-Decoding's (Dao, Haziza, Massa and Sizov, 2023). The query heads of a group share a tile of
keys, as the rows of one matrix product. Which part of which row a program computes comes from a work list, so that long
rows have many programs and the number of programs does not depend on the lengths.
"""

import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous
from backend.attention.kernels.product import as_multiplied, product
from backend.attention.kernels.softmax import join, load_tile, page_slots


@triton.jit(do_not_specialize=["num_items"])
def decode_parts(
    query,  # [R, heads, D]
    keys,  # [slots, kv_heads, D]
    values,  # [slots, kv_heads, DV]; not read when LATENT
    out,  # [R, heads, DV], of rows in one part
    part_out,  # float32[items, heads, DV], of all others
    part_log,  # float32[items, heads]: log2 of the sum that the part's softmax was divided by
    sinks,  # [heads]
    items,  # int32[3, programs]: row, first token, token behind the last; nothing to do where both are the same
    first_items,  # int32[R + 1]; a row without parts is left alone
    page_table,  # int32[R, table_width]
    widths,  # int32[1]: table_width
    num_items,
    query_stride,
    query_head_stride,
    scale,
    value_scale,
    CHAINED: tl.constexpr,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    PAGE: tl.constexpr,
    LATENT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    item = tl.program_id(0)
    start = tl.load(items + num_items + item)
    end = tl.load(items + 2 * num_items + item)
    row = tl.load(items + item)
    first_item = tl.load(first_items + row)
    table = page_table + row * tl.load(widths)
    after_previous(CHAINED)
    if start >= end:
        return
    kv_head = tl.program_id(1) % KV_HEADS
    in_group = tl.program_id(1) // KV_HEADS * BLOCK_H + tl.arange(0, BLOCK_H)
    heads = kv_head * GROUP + in_group
    real = in_group < GROUP
    dims = tl.arange(0, BLOCK_D)
    front: tl.constexpr = DV if LATENT else D
    at = query + row * query_stride + heads[:, None] * query_head_stride
    queries = as_multiplied(tl.load(at + dims[None, :], mask=real[:, None] & (dims < front)[None, :], other=0), keys)
    if LATENT:
        rest_dims = tl.arange(0, BLOCK_REST)
        rest_mask = real[:, None] & (rest_dims < D - DV)[None, :]
        turned = as_multiplied(tl.load(at + DV + rest_dims[None, :], mask=rest_mask, other=0), keys)

    best = tl.full([BLOCK_H], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    if HAS_SINKS:
        # A sink counts once: in a row's first part.
        is_first = item == first_item
        best = tl.where(is_first, tl.load(sinks + heads, mask=real, other=0).to(tl.float32) * 1.4426950408889634, best)
        total = tl.where(is_first, 1.0, total)
    weighted = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    for n in range(start, end, BLOCK_N):
        positions = n + tl.arange(0, BLOCK_N)
        inside = positions < end
        slots = page_slots(table, positions, inside, PAGE, True)
        key_tile = load_tile(keys + kv_head * D, slots, inside, dims, KV_HEADS * D, front, BLOCK_D, True).to(
            queries.dtype
        )
        scores = tl.zeros([BLOCK_H, BLOCK_N], tl.float32)
        scores = product(queries, tl.trans(key_tile), scores, PRECISION)
        if LATENT:
            rest_keys = keys + kv_head * D + DV
            rest_tile = load_tile(rest_keys, slots, inside, rest_dims, KV_HEADS * D, D - DV, BLOCK_REST, True).to(
                queries.dtype
            )
            scores = product(turned, tl.trans(rest_tile), scores, PRECISION)
            value_tile = key_tile
        else:
            value_tile = load_tile(values + kv_head * DV, slots, inside, dims, KV_HEADS * DV, DV, BLOCK_D, True).to(
                queries.dtype
            )
        weighted, best, total = join(
            scores, inside[None, :], value_tile, weighted, best, total, scale, True, SOFT_CAP, PRECISION
        )

    weighted = weighted * (value_scale / total)[:, None]
    written = real[:, None] & (dims < DV)[None, :]
    if tl.load(first_items + row + 1) - first_item == 1:
        whole = out + (row * KV_HEADS * GROUP + heads[:, None]) * DV + dims[None, :]
        tl.store(whole, weighted.to(out.dtype.element_ty), mask=written)
    else:
        part = part_out + (item * KV_HEADS * GROUP + heads[:, None]) * DV + dims[None, :]
        tl.store(part, weighted, mask=written)
        tl.store(part_log + item * KV_HEADS * GROUP + heads, best + tl.log2(total), mask=real)


@triton.jit
def decode_merge(
    out,  # [R, heads, DV]
    part_out,
    part_log,
    first_items,
    CHAINED: tl.constexpr,
    HEADS: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    HEADS_AT_ONCE: tl.constexpr,
):
    """The parts of one row and some heads, weighted by the sums that they were divided by."""
    row = tl.program_id(0)
    first = tl.load(first_items + row)
    behind = tl.load(first_items + row + 1)
    after_previous(CHAINED)
    if behind - first <= 1:
        return
    for head in range(tl.program_id(1) * HEADS_AT_ONCE, tl.minimum((tl.program_id(1) + 1) * HEADS_AT_ONCE, HEADS)):
        _merge(out, part_out, part_log, row, head, first, behind, HEADS, DV, BLOCK_D, BLOCK_PARTS)


@triton.jit
def _merge(
    out, part_out, part_log, row, head, first, behind,
    HEADS: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_PARTS: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, BLOCK_D)
    best = float("-inf")
    total = 0.0
    weighted = tl.zeros([BLOCK_D], tl.float32)
    for at in range(first, behind, BLOCK_PARTS):
        parts = at + tl.arange(0, BLOCK_PARTS)
        inside = parts < behind
        logs = tl.load(part_log + parts * HEADS + head, mask=inside, other=float("-inf"))
        place = part_out + (parts * HEADS + head)[:, None] * DV + dims[None, :]
        tile = tl.load(place, mask=inside[:, None] & (dims < DV)[None, :], other=0)
        new_best = tl.maximum(best, tl.max(logs, 0))
        weights = tl.exp2(logs - new_best)
        shrink = tl.exp2(best - new_best)
        total = total * shrink + tl.sum(weights, 0)
        weighted = weighted * shrink + tl.sum(weights[:, None] * tile, 0)
        best = new_best
    place = out + (row * HEADS + head) * DV + dims
    tl.store(place, (weighted / total).to(out.dtype.element_ty), mask=dims < DV)
