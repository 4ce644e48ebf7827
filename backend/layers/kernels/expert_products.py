"""The two matrix products of a mixture of experts, each over all experts at once.

Pairs of token and expert stand sorted by expert; a program computes one tile of the outputs of one block of pairs,
which all have the same expert, so its matrix is read once for a block.
"""

import triton
import triton.language as tl

from backend.attention.kernels.product import product
from backend.layers.kernels.gate import activate


@triton.jit
def _block(starts, block_starts, COUNT: tl.constexpr, PADDED: tl.constexpr, BLOCK_M: tl.constexpr):
    """Expert of this program's block, its first pair, and the pair behind the expert's last one."""
    block = tl.program_id(0)
    experts = tl.arange(0, PADDED)
    ends = tl.load(block_starts + 1 + experts, mask=experts < COUNT, other=0x7FFFFFFF)
    expert = tl.sum((ends <= block).to(tl.int32), 0)
    inside = expert < COUNT
    before = tl.load(block_starts + expert, mask=inside, other=0)
    first = tl.load(starts + expert, mask=inside, other=0) + (block - before) * BLOCK_M
    behind = tl.load(starts + expert + 1, mask=inside, other=0)
    return expert, first, behind


@triton.jit
def expert_gates(
    x,  # [T, hidden]
    gate_up,  # [experts, 2 size, hidden]
    bias,  # [experts, 2 size]
    order,  # int[pairs]: the pairs, sorted by expert; a pair is token * top_k + choice
    starts,  # int32[experts + 1]: each one's first pair in the order
    block_starts,  # int32[experts + 1]: each one's first block
    inner,  # [pairs, size], in that order
    stride,
    top_k,
    hidden,
    size,
    alpha,
    limit,
    COUNT: tl.constexpr,
    PADDED: tl.constexpr,
    ACT: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``act(gate) * up`` of each pair's expert."""
    expert, first, behind = _block(starts, block_starts, COUNT, PADDED, BLOCK_M)
    if first >= behind:
        return
    place = first + tl.arange(0, BLOCK_M)
    real = place < behind
    token = tl.load(order + place, mask=real, other=0) // top_k
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = column < size
    gate_row = 2 * column if INTERLEAVED else column
    up_row = 2 * column + 1 if INTERLEAVED else column + size
    matrix = gate_up + expert.to(tl.int64) * (2 * size * hidden)
    gates = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    ups = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, hidden, BLOCK_K):
        depth = start + tl.arange(0, BLOCK_K)
        there = depth < hidden
        mine = x + token.to(tl.int64)[:, None] * stride + depth[None, :]
        numbers = tl.load(mine, mask=real[:, None] & there[None, :], other=0.0)
        mask = wanted[:, None] & there[None, :]
        gate_tile = tl.load(matrix + gate_row[:, None] * hidden + depth[None, :], mask=mask, other=0.0)
        up_tile = tl.load(matrix + up_row[:, None] * hidden + depth[None, :], mask=mask, other=0.0)
        gates = product(numbers, tl.trans(gate_tile), gates, PRECISION)
        ups = product(numbers, tl.trans(up_tile), ups, PRECISION)
    if HAS_BIAS:
        gates += tl.load(bias + expert * 2 * size + gate_row, mask=wanted, other=0.0).to(tl.float32)[None, :]
        ups += tl.load(bias + expert * 2 * size + up_row, mask=wanted, other=0.0).to(tl.float32)[None, :]
    if ACT == "clamped_swiglu":
        gates = tl.minimum(gates, limit)
        ups = tl.minimum(tl.maximum(ups, -limit), limit)
        result = (ups + 1.0) * gates * tl.sigmoid(alpha * gates)
    else:
        result = activate(gates, ACT) * ups
    target = inner + place.to(tl.int64)[:, None] * size + column[None, :]
    tl.store(target, result.to(inner.dtype.element_ty), mask=real[:, None] & wanted[None, :])


@triton.jit
def expert_outputs(
    inner,  # [pairs, size], in the order
    down,  # [experts, hidden, size]
    bias,  # [experts, hidden]
    order,
    starts,
    block_starts,
    out,  # [pairs, hidden], by token and choice
    hidden,
    size,
    COUNT: tl.constexpr,
    PADDED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each pair's output, back at the pair's own place."""
    expert, first, behind = _block(starts, block_starts, COUNT, PADDED, BLOCK_M)
    if first >= behind:
        return
    place = first + tl.arange(0, BLOCK_M)
    real = place < behind
    pair = tl.load(order + place, mask=real, other=0)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = column < hidden
    matrix = down + expert.to(tl.int64) * (hidden * size)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, size, BLOCK_K):
        depth = start + tl.arange(0, BLOCK_K)
        there = depth < size
        mine = inner + place.to(tl.int64)[:, None] * size + depth[None, :]
        numbers = tl.load(mine, mask=real[:, None] & there[None, :], other=0.0)
        theirs = matrix + column[:, None] * size + depth[None, :]
        tile = tl.load(theirs, mask=wanted[:, None] & there[None, :], other=0.0)
        sums = product(numbers, tl.trans(tile), sums, PRECISION)
    if HAS_BIAS:
        sums += tl.load(bias + expert * hidden + column, mask=wanted, other=0.0).to(tl.float32)[None, :]
    target = out + pair.to(tl.int64)[:, None] * hidden + column[None, :]
    tl.store(target, sums.to(out.dtype.element_ty), mask=real[:, None] & wanted[None, :])


@triton.jit
def combine(
    outputs,  # [T, TOP_K, hidden]
    weights,  # [T, TOP_K]
    out,  # [T, hidden]
    hidden,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The weighted sum of a token's experts, always in the same order."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wanted = column < hidden
    total = tl.zeros([BLOCK], tl.float32)
    for choice in tl.static_range(TOP_K):
        numbers = tl.load(outputs + (token * TOP_K + choice) * hidden + column, mask=wanted, other=0.0)
        total += numbers.to(tl.float32) * tl.load(weights + token * TOP_K + choice).to(tl.float32)
    tl.store(out + token * hidden + column, total.to(out.dtype.element_ty), mask=wanted)
