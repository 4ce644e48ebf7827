"""Attention with FlashInfer's kernels (Ye et al., 2025): rows of one token, longer rows, shared prefixes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import AttentionBackend, AttentionShape, KVTarget, StepLayout
from backend.attention.flashinfer_kernels import MAX_GROUPS, FixedPages, Kernels, Pages, Prefixes
from backend.attention.sharing import Sharing, find_sharing
from backend.cache.kv_pool import KVPool
from backend.transfer import FixedMemory, Uploader

WORKSPACE_BYTES = 384 << 20  # partial results of rows that are split
HEAD_SIZES = (64, 128, 256)
USUAL_HEAD = 128


class FlashInfer(AttentionBackend):
    captures = True
    float32_pools = False

    @classmethod
    def computes(cls, shapes: Sequence[AttentionShape]) -> bool:
        """Only what most models have: each further kind of layer takes its kernels a minute to compile at first use."""
        return all(shape.head_dim == USUAL_HEAD and _is_plain(shape) for shape in shapes)

    def __init__(self, pool: KVPool, shapes: Sequence[AttentionShape]) -> None:
        self._pool, self._shapes = pool, tuple(shapes)
        for shape in shapes:
            if (reason := _refusal(shape)) is not None:
                raise ValueError(f"--attention-backend flashinfer does not do {reason}; use triton or torch_native")
        self._device = pool.keys[0].device
        workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=self._device)
        self._upload = Uploader(self._device)
        self._kinds = {shape: Kernels(shape, pool, workspace) for shape in dict.fromkeys(shapes)}
        self.shares = not any(shape.window for shape in shapes)

    def reserve(self, max_rows: int, max_row_pages: int, memory: FixedMemory) -> None:
        numbers = 4 * max_rows + 1 + max_rows * max_row_pages  # locations of 8 bytes, indptr, last lengths, indices
        self._room = memory.region(numbers, torch.int32)

    # -- plans ------------------------------------------------------------------------------------------------------

    def plan(self, layout: StepLayout) -> None:
        (self._locations,) = self._upload(layout.locations.numpy())
        query_lens, kv_lens = layout.query_lens.numpy(), layout.kv_lens.numpy()
        table = layout.page_table.numpy()
        self._singles = singles = int(np.count_nonzero(query_lens == 1))
        for kernels in self._kinds.values():
            if singles:
                kernels.plan_decode(self._pages(kv_lens[:singles], table[:singles]))
            if singles < len(query_lens):
                pages = self._pages(kv_lens[singles:], table[singles:])
                fresh = bool((query_lens[singles:] == kv_lens[singles:]).all())
                kernels.plan_prefill(query_lens[singles:], pages, fresh=fresh)

    def find_sharing(self, layout: StepLayout) -> Sharing | None:
        if not self.shares:
            return None
        return find_sharing(layout.page_table.numpy(), layout.kv_lens.numpy(), self._pool.page_size, MAX_GROUPS)

    def plan_fixed(self, layout: StepLayout) -> None:
        self._plan_fixed(layout, None)

    def plan_shared(self, layout: StepLayout, sharing: Sharing) -> None:
        self._plan_fixed(layout, sharing)

    def _plan_fixed(self, layout: StepLayout, sharing: Sharing | None) -> None:
        kv_lens, table = layout.kv_lens.numpy(), layout.page_table.numpy()
        self._singles = rows = len(kv_lens)
        if sharing is not None:
            skipped = np.repeat([len(pages) for pages in sharing.pages], np.diff(sharing.bounds))
            table, kv_lens = _behind(table, skipped), kv_lens - (skipped * self._pool.page_size).astype(np.int32)
        indptr, indices, last = _lists(kv_lens, table, self._pool.page_size)
        locations = layout.locations.numpy().view(np.int32)
        self._room.write(np.concatenate((locations, indptr, last, indices)))
        room, front = self._room.tensor, 4 * rows + 1
        self._locations = room[: 2 * rows].view(torch.int64)
        fixed = FixedPages(room[2 * rows : 3 * rows + 1], room[front:], room[3 * rows + 1 : front])
        pages = Pages(torch.from_numpy(indptr), room[front : front + len(indices)], torch.from_numpy(last))
        for kernels in self._kinds.values():
            kernels.plan_fixed(pages, fixed)
            if sharing is not None:
                kernels.plan_shared(self._prefixes(sharing), rows)

    def _pages(self, kv_lens: NDArray[np.int32], table: NDArray[np.int32]) -> Pages:
        indptr, indices, last = _lists(kv_lens, table, self._pool.page_size)
        return Pages(torch.from_numpy(indptr), self._upload(indices)[0], torch.from_numpy(last))

    def _prefixes(self, sharing: Sharing) -> Prefixes:
        """Padded with groups of no rows."""
        counts = np.zeros(MAX_GROUPS, np.int32)
        counts[: len(sharing.pages)] = [len(pages) for pages in sharing.pages]
        bounds = np.full(MAX_GROUPS + 1, sharing.bounds[-1], np.int32)
        bounds[: len(sharing.bounds)] = sharing.bounds
        indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        last = np.where(counts > 0, self._pool.page_size, 0).astype(np.int32)
        (indices,) = self._upload(np.concatenate(sharing.pages))
        pages = Pages(torch.from_numpy(indptr), indices, torch.from_numpy(last))
        return Prefixes(torch.from_numpy(bounds), pages)

    # -- layers -----------------------------------------------------------------------------------------------------

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self._pool.store(layer, self._locations, key, value)
        return self.attend_stored(layer, query, key, value, sinks)

    def target(self, layer: int) -> KVTarget:
        return KVTarget(self._pool.keys[layer], self._pool.values[layer], self._locations)

    def attend_stored(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        pool = self._pool.keys[layer], self._pool.values[layer]
        kernels, singles = self._kinds[self._shapes[layer]], self._singles
        if singles == len(query):
            return kernels.decode(query, pool).flatten(1)
        if not singles:
            return kernels.prefill(query, key, value, pool).flatten(1)
        out = query.new_empty(query.shape)
        out[:singles] = kernels.decode(query[:singles], pool)
        out[singles:] = kernels.prefill(query[singles:], key[singles:], value[singles:], pool)
        return out.flatten(1)


def _lists(
    kv_lens: NDArray[np.int32], table: NDArray[np.int32], page_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Where each row's pages start (and all end), the pages of all rows, and the tokens on each row's last page."""
    counts = -(-kv_lens // page_size)
    indptr = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=indptr[1:])
    width = int(counts.max())
    indices = table[:, :width][np.arange(width) < counts[:, None]]
    return indptr, indices, (kv_lens - (counts - 1) * page_size).astype(np.int32)


def _behind(table: NDArray[np.int32], skipped: NDArray[np.int64]) -> NDArray[np.int32]:
    """``table`` with the first ``skipped`` pages of each row left out; what comes in at the end is of no use."""
    columns = np.minimum(np.arange(table.shape[1]) + skipped[:, None], table.shape[1] - 1)
    return np.take_along_axis(table, columns, axis=1)


def _is_plain(shape: AttentionShape) -> bool:
    return _refusal(shape) is None and shape.window is None and shape.soft_cap is None


def _refusal(shape: AttentionShape) -> str | None:
    """What of ``shape`` these kernels do not compute."""
    if shape.value_dim is not None:
        return "latent attention"
    if shape.has_sinks:
        return "attention sinks"
    return None if shape.head_dim in HEAD_SIZES else f"heads of {shape.head_dim}"
