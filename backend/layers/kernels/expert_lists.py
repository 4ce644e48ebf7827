"""The pairs of token and expert sorted by expert, and cut into blocks of one expert each: one kernel, nothing waits.

A program stands for an expert. It counts the pairs of all experts, so that it knows where its own ones begin, and puts
them there in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained

CHUNKS = (128, 1024, 4096)  # pairs that a program looks at once


@dataclass(frozen=True, slots=True)
class Blocks:
    """``order`` int32[pairs] is the pairs by expert; a pair is ``token * top_k + choice``.

    ``table`` int32[3, blocks]: each block's expert, its first place in the order, and the place behind the expert's
    last pair. How many blocks there are is known on the device only: the last ones are empty, their places 0.
    """

    order: torch.Tensor
    table: torch.Tensor


@triton.jit(do_not_specialize=["pairs", "blocks"])
def arrange(
    ids,  # int[pairs]
    order,  # int32[pairs]
    table,  # int32[3, blocks]
    pairs,
    blocks,
    COUNT: tl.constexpr,
    CHAINED: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    CHUNK: tl.constexpr,
):
    expert = tl.program_id(0)
    bins = tl.arange(0, BINS)
    at = tl.arange(0, CHUNK)
    after_previous(CHAINED)
    counts = tl.zeros([BINS], tl.int32)
    for start in range(0, pairs, CHUNK):
        chosen = tl.load(ids + start + at, mask=start + at < pairs, other=COUNT).to(tl.int32)
        counts += tl.histogram(chosen, BINS)
    counts = tl.where(bins < COUNT, counts, 0)
    blocks_of = (counts + BLOCK_M - 1) // BLOCK_M
    before = bins < expert
    place = tl.sum(tl.where(before, counts, 0), 0)
    behind = place + tl.sum(tl.where(bins == expert, counts, 0), 0)
    block = tl.sum(tl.where(before, blocks_of, 0), 0)
    for first in range(place, behind, BLOCK_M):
        tl.store(table + block, expert)
        tl.store(table + blocks + block, first)
        tl.store(table + 2 * blocks + block, behind)
        block += 1
    if expert == COUNT - 1:
        for start in range(block, blocks, BINS):
            _clear(table, start + bins, blocks)
    for start in range(0, pairs, CHUNK):
        chosen = tl.load(ids + start + at, mask=start + at < pairs, other=COUNT).to(tl.int32)
        mine = (chosen == expert).to(tl.int32)
        tl.store(order + place + tl.cumsum(mine, 0) - 1, start + at, mask=mine != 0)
        place += tl.sum(mine, 0)


@triton.jit
def _clear(table, block, blocks):
    nothing = tl.zeros_like(block)
    for row in tl.static_range(3):
        tl.store(table + row * blocks + block, nothing, mask=block < blocks)


def arranged(ids: torch.Tensor, count: int, block: int) -> Blocks:
    """``ids`` (int[T, top_k]) of ``count`` experts, in blocks of at most ``block`` pairs."""
    pairs = ids.numel()
    most = min(pairs, count) + pairs // block
    order = torch.empty(pairs, dtype=torch.int32, device=ids.device)
    table = torch.empty(3, most, dtype=torch.int32, device=ids.device)
    chunk = next(size for size in CHUNKS if size >= pairs or size == CHUNKS[-1])
    arrange[(count,)](
        ids, order, table, pairs, most, COUNT=count, BINS=triton.next_power_of_2(count + 1), BLOCK_M=block,
        CHUNK=chunk, num_warps=4 if chunk <= 1024 else 8, **chained(ids.device),
    )  # fmt: skip
    return Blocks(order, table)
