"""A mixture of experts as two grouped matrix products (after MegaBlocks; Gale et al., 2022); nothing waits for the GPU.

How many blocks of pairs there are is known on the GPU only: as many programs start as there may be blocks, and the last
ones end at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from backend.attention.kernels.chain import chained
from backend.attention.kernels.product import precision
from backend.layers.experts import ExpertWeights
from backend.layers.kernels.expert_lists import Blocks, arranged
from backend.layers.kernels.expert_products import combine, expert_gates, expert_outputs
from backend.layers.kernels.few_experts import Cut, Cuts, few_experts

FEW_TOKENS = 4
FEW = Cuts(Cut(2, 1024, 2), Cut(2, 256, 4))  # as measured on an H200 (benchmarks/gpu_experts.py)
COMBINED = 1024


class Tile(NamedTuple):
    """Outputs of one program, ``n`` of each of the two halves in the first product; ``k`` numbers at a time."""

    n: int
    k: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """``m`` pairs in a block, and each product's tile."""

    m: int
    gates: Tile
    outputs: Tile


def experts(x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, of: ExpertWeights) -> torch.Tensor:
    """See :class:`backend.layers.ops.LayerOps`."""
    if len(x) <= FEW_TOKENS:
        return few_experts(x, weights, ids, of, FEW)
    return grouped(x, weights, ids, of, tiles_for(ids.numel() / len(of.down), x.dtype))


def grouped(x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, of: ExpertWeights, tiles: Tiles) -> torch.Tensor:
    """The same by grouped products."""
    tokens, hidden = x.shape
    lists = arranged(ids, len(of.down), tiles.m)
    inner = gates(x, of, lists, ids.shape[1], tiles)
    outputs = products(inner, of, lists, tiles)
    out = torch.empty_like(x)
    grid = (tokens, triton.cdiv(hidden, COMBINED))
    combine[grid](outputs, weights, out, hidden, TOP_K=ids.shape[1], BLOCK=COMBINED, **chained(x.device))
    return out


def gates(x: torch.Tensor, of: ExpertWeights, lists: Blocks, top_k: int, tiles: Tiles) -> torch.Tensor:
    """Of each pair, in the order of ``lists``, what its expert's second product begins with: ``[pairs, size]``."""
    hidden, size, blocks = of.down.shape[1], of.down.shape[2], lists.table.shape[1]
    inner = x.new_empty(len(lists.order), size)
    expert_gates[(blocks * triton.cdiv(size, tiles.gates.n),)](
        x, of.gate_up, x if of.gate_up_bias is None else of.gate_up_bias, lists.order, lists.table, inner,
        blocks, x.stride(0), top_k, hidden, size, of.alpha, of.limit,
        ACT=of.act, INTERLEAVED=of.interleaved, HAS_BIAS=of.gate_up_bias is not None,
        **_constants(tiles.m, tiles.gates, hidden, x.device),
    )  # fmt: skip
    return inner


def products(inner: torch.Tensor, of: ExpertWeights, lists: Blocks, tiles: Tiles) -> torch.Tensor:
    """Each pair's output ``[pairs, hidden]``, by token and choice."""
    _, hidden, size = of.down.shape
    blocks = lists.table.shape[1]
    outputs = inner.new_empty(len(inner), hidden)
    expert_outputs[(blocks * triton.cdiv(hidden, tiles.outputs.n),)](
        inner, of.down, inner if of.down_bias is None else of.down_bias, lists.order, lists.table, outputs,
        blocks, hidden, size, HAS_BIAS=of.down_bias is not None,
        **_constants(tiles.m, tiles.outputs, size, inner.device),
    )  # fmt: skip
    return outputs


def _constants(block: int, tile: Tile, depth: int, device: torch.device) -> dict[str, int | str | bool]:
    return {
        "PRECISION": precision(device),
        "BLOCK_M": block,
        "BLOCK_N": tile.n,
        "BLOCK_K": tile.k,
        "EVEN": depth % tile.k == 0,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        **chained(device),
    }


def tiles_for(pairs_per_expert: float, dtype: torch.dtype) -> Tiles:
    """As measured as well. Few tokens for each expert: the matrices must be read, and
    little is computed; many: the other way around.
    """
    if dtype.itemsize > 2:
        return Tiles(16, Tile(32, 32, 4, 2), Tile(32, 32, 4, 2))
    if pairs_per_expert <= 10:
        return Tiles(16, Tile(128, 128, 8, 3), Tile(128, 128, 4, 3))
    if pairs_per_expert <= 24:
        return Tiles(32, Tile(128, 128, 8, 2), Tile(128, 128, 4, 3))
    if pairs_per_expert <= 80:
        return Tiles(64, Tile(128, 64, 8, 4), Tile(256, 64, 8, 4))
    return Tiles(128, Tile(128, 64, 8, 4), Tile(256, 64, 8, 4))
