"""A mixture of experts for a few tokens: each pair of token and expert by itself, as fast as the matrices are read.

So few pairs seldom share an expert; nothing is sorted, and no tile of a matrix is kept. The second product adds up a
token's experts as well, always in the same order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained
from backend.layers.experts import ExpertWeights
from backend.layers.kernels.expert_products import gated


class Cut(NamedTuple):
    """What a program reads at once: rows of each matrix, numbers of a row; and its warps."""

    rows: int
    width: int
    warps: int


class Cuts(NamedTuple):
    gates: Cut
    outputs: Cut


@triton.jit
def pair_gates(
    x,  # [T, hidden]
    gate_up,  # [experts, 2 size, hidden]
    bias,  # [experts, 2 size]
    ids,  # int[T, top_k]
    inner,  # [pairs, size]
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
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``act(gate) * up`` of each pair."""
    pair = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = column < size
    gate_row = 2 * column if INTERLEAVED else column
    up_row = 2 * column + 1 if INTERLEAVED else column + size
    depth = tl.arange(0, BLOCK_K)
    mine = x + (pair // top_k) * stride + depth
    after_previous(CHAINED)
    expert = tl.load(ids + pair).to(tl.int64)
    matrix = gate_up + expert * (2 * size * hidden)
    gates = tl.zeros([BLOCK_N], tl.float32)
    ups = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, hidden, BLOCK_K):
        there = depth + start < hidden
        mask = wanted[:, None] & there[None, :]
        gate_part = tl.load(matrix + gate_row[:, None] * hidden + (depth + start)[None, :], mask=mask, other=0.0)
        up_part = tl.load(matrix + up_row[:, None] * hidden + (depth + start)[None, :], mask=mask, other=0.0)
        numbers = tl.load(mine + start, mask=there, other=0.0).to(tl.float32)[None, :]
        gates += tl.sum(gate_part.to(tl.float32) * numbers, 1)
        ups += tl.sum(up_part.to(tl.float32) * numbers, 1)
    if HAS_BIAS:
        gates += tl.load(bias + expert * 2 * size + gate_row, mask=wanted, other=0.0).to(tl.float32)
        ups += tl.load(bias + expert * 2 * size + up_row, mask=wanted, other=0.0).to(tl.float32)
    result = gated(gates, ups, alpha, limit, ACT)
    tl.store(inner + pair * size + column, result.to(inner.dtype.element_ty), mask=wanted)


@triton.jit
def token_outputs(
    inner,  # [T, TOP_K, size]
    down,  # [experts, hidden, size]
    bias,  # [experts, hidden]
    weights,  # [T, TOP_K]
    ids,  # int[T, TOP_K]
    out,  # [T, hidden]
    hidden,
    size,
    CHAINED: tl.constexpr,
    TOP_K: tl.constexpr,
    CHOICES: tl.constexpr,  # the power of two that holds TOP_K
    HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The weighted sum of a token's experts."""
    token = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = column < hidden
    choice = tl.arange(0, CHOICES)
    chosen = choice < TOP_K
    depth = tl.arange(0, BLOCK_K)
    after_previous(CHAINED)
    expert = tl.load(ids + token * TOP_K + choice, mask=chosen, other=0).to(tl.int64)
    weight = tl.load(weights + token * TOP_K + choice, mask=chosen, other=0.0).to(tl.float32)
    rows = down + expert[:, None, None] * (hidden * size) + column[None, :, None] * size + depth[None, None, :]
    mine = inner + (token * TOP_K + choice)[:, None] * size + depth[None, :]
    sums = tl.zeros([CHOICES, BLOCK_N], tl.float32)
    for start in range(0, size, BLOCK_K):
        there = chosen[:, None] & (depth + start < size)[None, :]
        part = tl.load(rows + start, mask=there[:, None, :] & wanted[None, :, None], other=0.0)
        numbers = tl.load(mine + start, mask=there, other=0.0)
        sums += tl.sum(part.to(tl.float32) * numbers.to(tl.float32)[:, None, :], 2)
    if HAS_BIAS:
        biases = bias + expert[:, None] * hidden + column[None, :]
        sums += tl.load(biases, mask=chosen[:, None] & wanted[None, :], other=0.0).to(tl.float32)
    total = tl.sum(sums * weight[:, None], 0)
    tl.store(out + token * hidden + column, total.to(out.dtype.element_ty), mask=wanted)


def few_experts(
    x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, of: ExpertWeights, cuts: Cuts
) -> torch.Tensor:
    """See ``experts`` of :class:`backend.layers.ops.LayerOps`."""
    return outputs(gates(x, ids, of, cuts.gates), weights, ids, of, cuts.outputs)


def gates(x: torch.Tensor, ids: torch.Tensor, of: ExpertWeights, cut: Cut) -> torch.Tensor:
    """Of each pair what its expert's second product begins with: ``[pairs, size]``."""
    hidden, size = of.down.shape[1:]
    inner = x.new_empty(ids.numel(), size)
    pair_gates[(triton.cdiv(size, cut.rows), len(inner))](
        x, of.gate_up, x if of.gate_up_bias is None else of.gate_up_bias, ids, inner,
        x.stride(0), ids.shape[1], hidden, size, of.alpha, of.limit,
        ACT=of.act, INTERLEAVED=of.interleaved, HAS_BIAS=of.gate_up_bias is not None,
        BLOCK_N=cut.rows, BLOCK_K=cut.width, num_warps=cut.warps, **chained(x.device),
    )  # fmt: skip
    return inner


def outputs(inner: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, of: ExpertWeights, cut: Cut) -> torch.Tensor:
    """Sum of each token's experts ``[T, hidden]``."""
    (tokens, top_k), (_, hidden, size) = ids.shape, of.down.shape
    out = inner.new_empty(tokens, hidden)
    token_outputs[(triton.cdiv(hidden, cut.rows), tokens)](
        inner, of.down, inner if of.down_bias is None else of.down_bias, weights, ids, out, hidden, size,
        TOP_K=top_k, CHOICES=triton.next_power_of_2(top_k), HAS_BIAS=of.down_bias is not None,
        BLOCK_N=cut.rows, BLOCK_K=cut.width, num_warps=cut.warps, **chained(inner.device),
    )  # fmt: skip
    return out
