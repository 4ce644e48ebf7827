"""The two matrix products of a mixture of experts, each over all experts at once.

Pairs of token and expert stand sorted by expert; a program computes one tile of the outputs of one block of pairs,
which all have the same expert, so its matrix is read once for a block. Tiles of one block run beside each other: they
read the same tokens.
"""

import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous
from backend.attention.kernels.product import product
from backend.layers.kernels.gate import activate


@triton.jit
def gated(gates, ups, alpha, limit, ACT: tl.constexpr):
    """What stands between an expert's two products."""
    if ACT == "clamped_swiglu":
        gates = tl.minimum(gates, limit)
        ups = tl.minimum(tl.maximum(ups, -limit), limit)
        return (ups + 1.0) * gates * tl.sigmoid(alpha * gates)
    else:
        return activate(gates, ACT) * ups


@triton.jit(do_not_specialize=["blocks"])
def expert_gates(
    x,  # [T, hidden]
    gate_up,  # [experts, 2 size, hidden]
    bias,  # [experts, 2 size]
    order,  # see backend.layers.kernels.expert_lists
    table,
    inner,  # [pairs, size], in that order
    blocks,
    stride,
    top_k,
    hidden,
    size,
    alpha,
    limit,
    CHAINED: tl.constexpr,
    ACT: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,  # BLOCK_K divides hidden
):
    """``act(gate) * up`` of each pair's expert."""
    columns = tl.cdiv(size, BLOCK_N)
    block = tl.program_id(0) // columns
    column = (tl.program_id(0) % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    after_previous(CHAINED)
    first = tl.load(table + blocks + block)
    behind = tl.load(table + 2 * blocks + block)
    if first >= behind:
        return
    expert = tl.load(table + block)
    place = first + tl.arange(0, BLOCK_M)
    real = place < behind
    token = tl.load(order + place, mask=real, other=0) // top_k
    wanted = column < size
    safe = tl.minimum(column, size - 1)
    gate_row = 2 * safe if INTERLEAVED else safe
    up_row = 2 * safe + 1 if INTERLEAVED else safe + size
    matrix = gate_up + expert.to(tl.int64) * (2 * size * hidden)
    depth = tl.arange(0, BLOCK_K)
    mine = x + token.to(tl.int64)[:, None] * stride + depth[None, :]
    gate_part = matrix + gate_row[:, None] * hidden + depth[None, :]
    up_part = matrix + up_row[:, None] * hidden + depth[None, :]
    gates = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    ups = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, hidden, BLOCK_K):
        numbers = _part(mine + start, depth + start, hidden, EVEN)
        gates = product(numbers, tl.trans(_part(gate_part + start, depth + start, hidden, EVEN)), gates, PRECISION)
        ups = product(numbers, tl.trans(_part(up_part + start, depth + start, hidden, EVEN)), ups, PRECISION)
    if HAS_BIAS:
        gates += tl.load(bias + expert * 2 * size + gate_row).to(tl.float32)[None, :]
        ups += tl.load(bias + expert * 2 * size + up_row).to(tl.float32)[None, :]
    result = gated(gates, ups, alpha, limit, ACT)
    target = inner + place.to(tl.int64)[:, None] * size + column[None, :]
    tl.store(target, result.to(inner.dtype.element_ty), mask=real[:, None] & wanted[None, :])


@triton.jit
def _part(places, depth, length, EVEN: tl.constexpr):
    """A tile of numbers; zeros behind ``length``."""
    if EVEN:
        return tl.load(places)
    else:
        return tl.load(places, mask=(depth < length)[None, :], other=0.0)


@triton.jit(do_not_specialize=["blocks"])
def expert_outputs(
    inner,  # [pairs, size], in the order
    down,  # [experts, hidden, size]
    bias,  # [experts, hidden]
    order,
    table,
    out,  # [pairs, hidden], by token and choice
    blocks,
    hidden,
    size,
    CHAINED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,  # BLOCK_K divides size
):
    """Each pair's output, back at the pair's own place."""
    columns = tl.cdiv(hidden, BLOCK_N)
    block = tl.program_id(0) // columns
    column = (tl.program_id(0) % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    after_previous(CHAINED)
    first = tl.load(table + blocks + block)
    behind = tl.load(table + 2 * blocks + block)
    if first >= behind:
        return
    expert = tl.load(table + block)
    place = first + tl.arange(0, BLOCK_M)
    real = place < behind
    source = tl.minimum(place, behind - 1)
    pair = tl.load(order + source)
    wanted = column < hidden
    safe = tl.minimum(column, hidden - 1)
    depth = tl.arange(0, BLOCK_K)
    mine = inner + source.to(tl.int64)[:, None] * size + depth[None, :]
    theirs = down + expert.to(tl.int64) * (hidden * size) + safe[:, None] * size + depth[None, :]
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, size, BLOCK_K):
        numbers = _part(mine + start, depth + start, size, EVEN)
        sums = product(numbers, tl.trans(_part(theirs + start, depth + start, size, EVEN)), sums, PRECISION)
    if HAS_BIAS:
        sums += tl.load(bias + expert * hidden + safe).to(tl.float32)[None, :]
    target = out + pair.to(tl.int64)[:, None] * hidden + column[None, :]
    tl.store(target, sums.to(out.dtype.element_ty), mask=real[:, None] & wanted[None, :])


@triton.jit
def combine(
    outputs,  # [T, TOP_K, hidden]
    weights,  # [T, TOP_K]
    out,  # [T, hidden]
    hidden,
    CHAINED: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The weighted sum of a token's experts, always in the same order."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wanted = column < hidden
    total = tl.zeros([BLOCK], tl.float32)
    after_previous(CHAINED)
    for choice in tl.static_range(TOP_K):
        numbers = tl.load(outputs + (token * TOP_K + choice) * hidden + column, mask=wanted, other=0.0)
        total += numbers.to(tl.float32) * tl.load(weights + token * TOP_K + choice).to(tl.float32)
    tl.store(out + token * hidden + column, total.to(out.dtype.element_ty), mask=wanted)
