"""A mixture of experts as two grouped matrix products (after MegaBlocks; Gale et al., 2022); nothing waits for the GPU.

The pairs of token and expert are sorted by expert, and every expert's pairs are cut into blocks of one size. How many
blocks there are is known on the GPU only: as many programs start as there may be blocks, and the last ones end at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from backend.attention.kernels.product import precision
from backend.layers.experts import ExpertWeights
from backend.layers.kernels.expert_products import combine, expert_gates, expert_outputs

COMBINED = 1024


@dataclass(frozen=True, slots=True)
class _Tiles:
    m: int
    n: int
    k: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Where the sorted pairs stand, see :mod:`backend.layers.kernels.expert_products`."""

    order: torch.Tensor
    starts: torch.Tensor
    block_starts: torch.Tensor
    most: int  # blocks that there may be


def experts(x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, of: ExpertWeights) -> torch.Tensor:
    """See :class:`backend.layers.ops.LayerOps`."""
    tokens, hidden = x.shape
    count, _, size = of.down.shape
    pairs, top_k = ids.numel(), ids.shape[1]
    tiles = _tiles(pairs / count, x.dtype)
    blocks = _blocks(ids, count, tiles.m)
    inner, outputs = x.new_empty(pairs, size), x.new_empty(pairs, hidden)
    constants = {
        "COUNT": count,
        "PADDED": triton.next_power_of_2(count),
        "PRECISION": precision(x.device),
        "BLOCK_M": tiles.m,
        "BLOCK_N": tiles.n,
        "BLOCK_K": tiles.k,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }
    lists = blocks.order, blocks.starts, blocks.block_starts
    expert_gates[(blocks.most, triton.cdiv(size, tiles.n))](
        x, of.gate_up, x if of.gate_up_bias is None else of.gate_up_bias, *lists, inner,
        x.stride(0), top_k, hidden, size, of.alpha, of.limit,
        ACT=of.act, INTERLEAVED=of.interleaved, HAS_BIAS=of.gate_up_bias is not None, **constants,
    )  # fmt: skip
    expert_outputs[(blocks.most, triton.cdiv(hidden, tiles.n))](
        inner, of.down, x if of.down_bias is None else of.down_bias, *lists, outputs, hidden, size,
        HAS_BIAS=of.down_bias is not None, **constants,
    )  # fmt: skip
    out = torch.empty_like(x)
    combine[(tokens, triton.cdiv(hidden, COMBINED))](outputs, weights, out, hidden, TOP_K=top_k, BLOCK=COMBINED)
    return out


def _blocks(ids: torch.Tensor, count: int, block: int) -> _Blocks:
    pairs = ids.numel()
    sorted_ids, order = ids.flatten().sort(stable=True)
    starts = torch.searchsorted(sorted_ids, torch.arange(count + 1, device=ids.device)).int()
    per_expert = (starts.diff() + block - 1) // block
    block_starts = torch.zeros_like(starts)
    torch.cumsum(per_expert, 0, out=block_starts[1:])
    return _Blocks(order.int(), starts, block_starts, most=min(pairs, count) + pairs // block)


def _tiles(pairs_per_expert: float, dtype: torch.dtype) -> _Tiles:
    """Few tokens for each expert: the matrices must be read, and little is computed; many: the other way around."""
    if dtype.itemsize > 2:
        return _Tiles(16, 32, 32, 4, 2)
    if pairs_per_expert <= 16:
        return _Tiles(16, 64, 128, 4, 3)
    return _Tiles(64, 64, 64, 4, 3) if pairs_per_expert <= 128 else _Tiles(128, 64, 64, 8, 3)
