"""``x W^T + b`` for one or a few rows of ``x``: what counts is how fast the matrix is read, so no tile of it is kept.

Each program reads some whole rows of the matrix and multiplies them with all of ``x``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from backend.attention.kernels.chain import after_previous, chained

MOST_ROWS = 4
LARGEST_FOR_ONE = 20 << 20  # numbers of the matrix, for one row of ``x``
LARGEST_FOR_FEW = 4 << 20
KINDS = (torch.bfloat16, torch.float16)


class Shape(NamedTuple):
    """How a kernel is cut: rows of the matrix for one program, numbers of a row at a time, warps."""

    rows: int
    width: int
    warps: int


@triton.jit
def _few_rows(
    x,  # [M, K]
    weight,  # [N, K]
    bias,  # [N]
    out,  # [M, N]
    N,
    K,
    stride,
    CHAINED: tl.constexpr,
    M: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = rows < N
    m = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    part = _weights(weight, rows, real, k, K)  # on its way while the kernel before ends
    after_previous(CHAINED)
    total = _products(x, m, stride, k, K, part, M)
    for start in range(BLOCK_K, K, BLOCK_K):
        part = _weights(weight, rows, real, start + k, K)
        total += _products(x, m, stride, start + k, K, part, M)
    if HAS_BIAS:
        total += tl.load(bias + rows, mask=real, other=0).to(tl.float32)[None, :]
    place = out + m[:, None] * N + rows[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(m < M)[:, None] & real[None, :])


@triton.jit
def _weights(weight, rows, real, k, K):
    """``[BLOCK_N, BLOCK_K]``; zeros outside."""
    return tl.load(weight + rows[:, None].to(tl.int64) * K + k[None, :], mask=real[:, None] & (k < K)[None, :], other=0)


@triton.jit
def _products(x, m, stride, k, K, part, M: tl.constexpr):
    """float32 ``[BLOCK_M, BLOCK_N]``."""
    given = tl.load(x + m[:, None] * stride + k[None, :], mask=(m < M)[:, None] & (k < K)[None, :], other=0)
    return tl.sum(given.to(tl.float32)[:, None, :] * part.to(tl.float32)[None, :, :], 2)


def shape_for(rows: int, out_features: int, in_features: int) -> Shape | None:
    """As measured on an H200; None where the library's matrix products are faster: from some size of the matrix on both
    read at the speed of the memory, and more rows of ``x`` are for tensor cores.
    """
    if out_features * in_features > (LARGEST_FOR_ONE if rows == 1 else LARGEST_FOR_FEW):
        return None
    return Shape(2, min(triton.next_power_of_2(in_features), 2048), 4)


def multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Shape) -> torch.Tensor:
    """``[M, N]`` for ``x`` ``[M, K]``, contiguous in the last dimension, and ``weight`` ``[N, K]``."""
    (rows, width), features = x.shape, len(weight)
    out = torch.empty(rows, features, dtype=weight.dtype, device=x.device)
    _few_rows[(triton.cdiv(features, shape.rows),)](
        x, weight, x if bias is None else bias, out, features, width, x.stride(0),
        M=rows, HAS_BIAS=bias is not None, BLOCK_M=triton.next_power_of_2(rows),
        BLOCK_N=shape.rows, BLOCK_K=shape.width, num_warps=shape.warps, **chained(x.device),
    )  # fmt: skip
    return out


@torch.library.custom_op("warmlane::few_rows", mutates_args=())
def _opaque(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """:func:`linear` where ``torch.compile`` does not look into it."""
    return linear(x, weight, bias)


@_opaque.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return weight.new_empty(x.shape[0], weight.shape[0])


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """See :class:`backend.layers.ops.LayerOps`."""
    suits = x.dim() == 2 and 0 < len(x) <= MOST_ROWS and x.dtype in KINDS and x.stride(1) == 1
    shape = shape_for(len(x), *weight.shape) if suits else None
    if shape is not None and torch.compiler.is_compiling():
        return _opaque(x, weight, bias)
    return F.linear(x.to(weight.dtype), weight, bias) if shape is None else multiply(x, weight, bias, shape)
