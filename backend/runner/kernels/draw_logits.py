"""Draw a token straight from the logits: they are read once, and one block of each row twice.

Where nothing limits the tokens, a draw needs the sum of exp(logit / temperature) up to each block of the row, and then
the numbers of the one block in which the sum passes its goal: probabilities are never written. Sums of blocks refer to
the row's largest logit afterwards, as in the online softmax (Milakov and Gimelshein, 2018).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained

BLOCK = 4096


@triton.jit
def _weights(logits, at, real, temperature, largest):
    """exp((logit - largest) / temperature), where ``largest`` may be -inf in a block without any allowed token."""
    numbers = tl.load(logits + at, mask=real, other=float("-inf")).to(tl.float32)
    return tl.where(numbers == float("-inf"), 0.0, tl.exp((numbers - largest) / temperature))


@triton.jit
def sum_blocks(
    logits,  # [R, vocab]
    temperatures,  # float32[R]
    largest,  # float32[R, blocks]
    largest_at,  # int32[R, blocks]
    sums,  # float32[R, blocks] of exp((logit - the block's largest) / temperature)
    vocab,
    stride,
    CHAINED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < vocab
    after_previous(CHAINED)
    numbers = tl.load(logits + row * stride + at, mask=real, other=float("-inf")).to(tl.float32)
    value, index = tl.max(numbers, 0, return_indices=True)  # the first of equal ones
    weights = tl.exp((numbers - value) / tl.load(temperatures + row))
    place = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(largest + place, value)
    tl.store(largest_at + place, tl.program_id(1) * BLOCK + index)
    tl.store(sums + place, tl.sum(tl.where(numbers == float("-inf"), 0.0, weights), 0))


@triton.jit
def draw_in_block(
    logits,
    temperatures,
    hot,  # bool[R]
    shares,  # float32[R] in [0, 1)
    largest,
    largest_at,
    sums,
    out,  # int64[R]
    vocab,
    stride,
    blocks,
    CHAINED: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS)
    there = block < blocks
    after_previous(CHAINED)
    values = tl.load(largest + row * blocks + block, mask=there, other=float("-inf"))
    best, best_block = tl.max(values, 0, return_indices=True)
    if tl.load(hot + row):
        temperature = tl.load(temperatures + row)
        masses = tl.load(sums + row * blocks + block, mask=there, other=0.0)
        masses = tl.where(masses > 0, masses * tl.exp((values - best) / temperature), 0.0)
        ends = tl.cumsum(masses, 0)
        goal = tl.load(shares + row) * tl.sum(masses, 0)
        passed = (ends > goal) & (masses > 0)
        last = tl.max(tl.where(masses > 0, block, 0), 0)
        chosen = tl.min(tl.where(passed, block, last), 0)
        goal -= tl.sum(tl.where(block < chosen, masses, 0.0), 0)
        at = chosen * BLOCK + tl.arange(0, BLOCK)
        weights = _weights(logits + row * stride, at, at < vocab, temperature, best)
        token = tl.min(tl.where((tl.cumsum(weights, 0) > goal) & (weights > 0), at, vocab), 0)
        # Rounding may leave the goal a hair beyond the block's last weight.
        token = tl.where(token < vocab, token, tl.max(tl.where(weights > 0, at, 0), 0))
    else:
        token = tl.load(largest_at + row * blocks + tl.minimum(best_block, blocks - 1))
    tl.store(out + row, tl.minimum(token, vocab - 1).to(tl.int64))  # of a row of NaN any, but one that exists


def draw_from_logits(
    logits: torch.Tensor, temperature: torch.Tensor, hot: torch.Tensor, at: torch.Tensor
) -> torch.Tensor:
    """One token for each row of ``logits`` (floating, ``[R, vocab]``): int64[R].

    Rows that are ``hot`` (bool[R]) draw at ``at`` (float32[R] in [0, 1)) by inverting the running sum of
    ``softmax(logits / temperature)`` along the tokens; the others take the first of their likeliest tokens.
    """
    rows, vocab = logits.shape
    block = min(BLOCK, triton.next_power_of_2(vocab))
    blocks = triton.cdiv(vocab, block)
    largest = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
    largest_at = torch.empty(rows, blocks, dtype=torch.int32, device=logits.device)
    sums = torch.empty_like(largest)
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    shared = {"BLOCK": block, "num_warps": max(block // 512, 1)} | chained(logits.device)
    sum_blocks[(rows, blocks)](logits, temperature, largest, largest_at, sums, vocab, logits.stride(0), **shared)
    draw_in_block[(rows,)](
        logits, temperature, hot, at, largest, largest_at, sums, out, vocab, logits.stride(0), blocks,
        BLOCKS=triton.next_power_of_2(blocks), **shared,
    )  # fmt: skip
    return out
