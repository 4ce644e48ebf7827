"""What both attention kernels repeat: read a tile of keys, and let it join a running softmax.

The online softmax of FlashAttention-2 (Dao, 2023), in base 2: a running maximum and sum for each query, and the
weighted sum of the values, scaled down whenever the maximum grows.
"""

import triton
import triton.language as tl

from backend.attention.kernels.product import product


@triton.jit
def page_slots(table, positions, inside, PAGE: tl.constexpr, MASKED: tl.constexpr):
    """Where the tokens at ``positions`` of a row stand in the pool: page times page size plus offset, int64."""
    if MASKED:
        pages = tl.load(table + positions // PAGE, mask=inside, other=0)
    else:
        pages = tl.load(table + positions // PAGE)
    return pages.to(tl.int64) * PAGE + positions % PAGE


@triton.jit
def load_tile(
    pool, slots, inside, dims, STRIDE: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr
):
    """``[tokens, BLOCK]`` of one head, of which ``SIZE`` are there; zeros outside: no leftover may spoil a sum."""
    places = pool + slots[:, None] * STRIDE + dims[None, :]
    if SIZE < BLOCK:
        return tl.load(places, mask=inside[:, None] & (dims < SIZE)[None, :], other=0.0)
    elif MASKED:
        return tl.load(places, mask=inside[:, None], other=0.0)
    else:
        return tl.load(places)


@triton.jit
def capped(scores, scale, SOFT_CAP: tl.constexpr):
    """``cap * tanh(score / cap)``, times log2(e), which ``scale`` contains."""
    # tanh(x) = 1 - 2 / (1 + 2^(2x log2 e))
    turned = 1.0 - 2.0 / (1.0 + tl.exp2(scores * (2.0 * scale / SOFT_CAP)))
    return turned * (SOFT_CAP * 1.4426950408889634)


@triton.jit
def join(
    scores, visible, tile, weighted, best, total, scale, MASKED: tl.constexpr, SOFT_CAP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the products ``scores`` ``[queries, tokens]`` and the values ``tile`` into the running softmax.

    ``scale`` contains log2(e) and is positive. ``visible`` counts with MASKED.
    """
    if SOFT_CAP > 0:
        scores = capped(scores, scale, SOFT_CAP)
        scale = 1.0
    if MASKED:
        scores = tl.where(visible, scores, float("-inf"))
    new_best = tl.maximum(best, tl.max(scores, 1) * scale)
    # A query that has seen nothing yet would compute -inf minus -inf.
    reference = tl.where(new_best == float("-inf"), 0.0, new_best) if MASKED else new_best
    weights = tl.exp2(scores * scale - reference[:, None])
    shrink = tl.exp2(best - reference)
    total = total * shrink + tl.sum(weights, 1)
    weighted = weighted * shrink[:, None]
    weighted = product(weights.to(tile.dtype), tile, weighted, PRECISION)
    return weighted, new_best, total
