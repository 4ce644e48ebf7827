"""Draw a token with top-k, top-p and min-p without sorting.

All three keep a front part of the tokens in order of their probability, and the draw walks along the same order. So
each is a search for the probability at which a count or a sum over all larger ones passes a goal: bisection on the bits
of a float, whose order is that of the numbers, where each look at the row also moves the ends to numbers that occur in
it (after the pivots of FlashInfer's sampling; Ye et al., 2025). Equal probabilities count in the order of the tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 4096


@triton.jit
def _search(row, vocab, goal, BY_COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The largest number v of the row with more than ``goal`` in all that are at least v, counted or summed.

    Also what the numbers larger than v are: sum and count.
    """
    low = tl.full([], 0, tl.int32)
    high = tl.full([], 0x7F800000, tl.int32)
    mass_above = tl.full([], 0.0, tl.float32)
    count_above = tl.full([], 0, tl.int32)
    while high - low > 1:
        pivot = (low + (high - low) // 2).to(tl.float32, bitcast=True)
        masses = tl.zeros([BLOCK], tl.float32)
        counts = tl.zeros([BLOCK], tl.int32)
        nearest_above = tl.full([BLOCK], float("inf"), tl.float32)
        nearest_below = tl.zeros([BLOCK], tl.float32)
        for start in range(0, vocab, BLOCK):
            at = start + tl.arange(0, BLOCK)
            numbers = tl.load(row + at, mask=at < vocab, other=-1.0)
            above = numbers >= pivot
            masses += tl.where(above, numbers, 0.0)
            counts += above.to(tl.int32)
            nearest_above = tl.minimum(nearest_above, tl.where(above, numbers, float("inf")))
            nearest_below = tl.maximum(nearest_below, tl.where(above, 0.0, numbers))
        mass = tl.sum(masses, 0)
        count = tl.sum(counts, 0)
        enough = count > goal if BY_COUNT else mass > goal
        if enough:
            low = tl.min(nearest_above, 0).to(tl.int32, bitcast=True)
        else:
            high = tl.max(nearest_below, 0).to(tl.int32, bitcast=True) + 1
            mass_above = mass
            count_above = count
    return low.to(tl.float32, bitcast=True), mass_above, count_above


@triton.jit
def _nth_equal(row, vocab, number, nth, BLOCK: tl.constexpr):
    """Where ``number`` stands for the ``nth`` time, or for the last."""
    token = vocab - 1
    seen = 0
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        equal = tl.load(row + at, mask=at < vocab, other=-1.0) == number
        ordinals = seen + tl.cumsum(equal.to(tl.int32), 0)
        candidates = tl.where(equal & (ordinals <= nth + 1), at, -1)
        best = tl.max(candidates, 0)
        token = tl.where(best >= 0, best, token)
        seen = tl.max(ordinals, 0)
    return token


@triton.jit
def _draw_in_token_order(row, vocab, floor, at_share, BLOCK: tl.constexpr):
    """The token at which the running sum of the numbers that are at least ``floor`` passes that share of the whole."""
    total = 0.0
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        numbers = tl.load(row + at, mask=at < vocab, other=0.0)
        total += tl.sum(tl.where(numbers >= floor, numbers, 0.0), 0)
    goal = at_share * total
    before = 0.0
    token = vocab
    last = vocab - 1
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        numbers = tl.load(row + at, mask=at < vocab, other=0.0)
        numbers = tl.where(numbers >= floor, numbers, 0.0)
        passed = (before + tl.cumsum(numbers, 0) > goal) & (numbers > 0)
        token = tl.minimum(token, tl.min(tl.where(passed, at, vocab), 0))
        last_here = tl.max(tl.where(numbers > 0, at, -1), 0)
        last = tl.where(last_here >= 0, last_here, last)
        before += tl.sum(numbers, 0)
    return tl.where(token < vocab, token, last)


@triton.jit(do_not_specialize=["limits"])  # compiled once, whatever limits there are
def _draw_rows(
    probabilities,  # float32[R, vocab]
    top_k,  # int64[R]
    top_p,  # float32[R]
    min_p,  # float32[R]
    shares,  # float32[R] in [0, 1)
    out,  # int64[R]
    vocab,
    stride,
    limits,  # 1 with top_k, plus 2 with top_p, plus 4 with min_p: the others are not read
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    row = probabilities + index.to(tl.int64) * stride
    share = tl.load(shares + index)
    k = tl.load(top_k + index, mask=(limits & 1) != 0, other=vocab).to(tl.int32)
    p = tl.load(top_p + index, mask=(limits & 2) != 0, other=1.0)
    floor = tl.full([], 0.0, tl.float32)
    if (limits & 4) != 0:
        best = tl.zeros([BLOCK], tl.float32)
        for start in range(0, vocab, BLOCK):
            at = start + tl.arange(0, BLOCK)
            best = tl.maximum(best, tl.load(row + at, mask=at < vocab, other=0.0))
        floor = tl.max(best, 0) * tl.load(min_p + index)
    if (k >= vocab) & (p >= 1.0):
        tl.store(out + index, _draw_in_token_order(row, vocab, floor, share, BLOCK).to(tl.int64))
    else:
        whole = 0.0
        likely = 0.0  # the sum of what min-p keeps
        for start in range(0, vocab, BLOCK):
            at = start + tl.arange(0, BLOCK)
            numbers = tl.load(row + at, mask=at < vocab, other=0.0)
            whole += tl.sum(numbers, 0)
            likely += tl.sum(tl.where(numbers >= floor, numbers, 0.0), 0)
        if k < vocab:
            number, mass, count = _search(row, vocab, k - 1, True, BLOCK)
            whole = mass + (k - count).to(tl.float32) * number
        if p < 1.0:
            number, mass, count = _search(row, vocab, p * whole, False, BLOCK)
            # The ones equal to the number that stands at the goal: those that begin before it stay, one at least.
            kept = tl.maximum(tl.ceil((p * whole - mass) / number), 1.0)
            whole = tl.minimum(whole, mass + kept * number)
        whole = tl.minimum(whole, likely)
        number, mass, count = _search(row, vocab, share * whole, False, BLOCK)
        nth = tl.maximum((share * whole - mass) / number, 0.0).to(tl.int32)
        tl.store(out + index, _nth_equal(row, vocab, number, nth, BLOCK).to(tl.int64))


def draw(
    probabilities: torch.Tensor,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    at: torch.Tensor,
) -> torch.Tensor:
    """One token for each row of ``probabilities`` (float32 ``[R, vocab]``), at ``at`` in [0, 1): int64[R].

    A row that neither top-k nor top-p limits is drawn in the order of the tokens, others in that of the probabilities.
    """
    rows, vocab = probabilities.shape
    out = torch.empty(rows, dtype=torch.int64, device=probabilities.device)
    block = min(BLOCK, triton.next_power_of_2(vocab))
    _draw_rows[(rows,)](
        probabilities,
        out if top_k is None else top_k,  # of the same dtype
        at if top_p is None else top_p,
        at if min_p is None else min_p,
        at, out, vocab, probabilities.stride(0),
        sum(bit for bit, limit in ((1, top_k), (2, top_p), (4, min_p)) if limit is not None),
        BLOCK=block, num_warps=max(block // 256, 1),
    )  # fmt: skip
    return out
