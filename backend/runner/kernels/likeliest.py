"""Copy logits and find each row's likeliest token in the same pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained

BLOCK = 8192


@triton.jit
def _copy_blocks(
    logits,  # [R, vocab]
    kept,  # [R, vocab], where they go
    best,  # float32[R, blocks]
    best_at,  # int32[R, blocks]
    vocab,
    stride,
    kept_stride,
    CHAINED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < vocab
    after_previous(CHAINED)
    numbers = tl.load(logits + row * stride + at, mask=real, other=float("-inf")).to(kept.dtype.element_ty)
    tl.store(kept + row * kept_stride + at, numbers, mask=real)
    value, index = tl.max(numbers.to(tl.float32), 0, return_indices=True)  # the first of equal ones
    place = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(best + place, value)
    tl.store(best_at + place, tl.program_id(1) * BLOCK + index)


@triton.jit
def _best_of_blocks(best, best_at, tokens, vocab, blocks, CHAINED: tl.constexpr, BLOCKS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS)
    after_previous(CHAINED)
    values = tl.load(best + row * blocks + block, mask=block < blocks, other=float("-inf"))
    _, index = tl.max(values, 0, return_indices=True)
    index = tl.minimum(index, blocks - 1)
    token = tl.load(best_at + row * blocks + index)
    tl.store(tokens + row, tl.minimum(token, vocab - 1).to(tl.int64))  # of a row of NaN any, but one that exists


def keep_and_find(logits: torch.Tensor, kept: torch.Tensor, tokens: torch.Tensor) -> None:
    """``logits`` ``[R, vocab]`` to ``kept``, rounded to its dtype; where each row is largest to ``tokens``, int64."""
    rows, vocab = logits.shape
    blocks = triton.cdiv(vocab, BLOCK)
    best = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
    best_at = torch.empty(rows, blocks, dtype=torch.int32, device=logits.device)
    _copy_blocks[(rows, blocks)](
        logits, kept, best, best_at, vocab, logits.stride(0), kept.stride(0),
        BLOCK=BLOCK, num_warps=8, **chained(logits.device),
    )  # fmt: skip
    _best_of_blocks[(rows,)](
        best, best_at, tokens, vocab, blocks,
        BLOCKS=triton.next_power_of_2(blocks), num_warps=1, **chained(logits.device),
    )  # fmt: skip
