"""Attention with FlashInfer's kernels (Ye et al., 2025): one for rows of one token, one for longer rows.

A plan is made on the CPU and copied to the GPU from memory that belongs to the wrapper, so a wrapper plans again only
when that copy has been made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import flashinfer
import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import AttentionBackend, AttentionShape, StepLayout
from backend.cache.kv_pool import KVPool
from backend.transfer import Uploader

WORKSPACE_BYTES = 384 << 20  # partial results of rows that are split; shared, since all runs on one stream
HEAD_SIZES = (64, 128, 256)
TENSOR_CORE_GROUP = 4  # query heads a key head from which matrix products pay in decoding


@dataclass(frozen=True, slots=True)
class _Pages:
    """Which pages the rows read, as FlashInfer wants it: ``indices`` on the GPU, the rest on the CPU."""

    indptr: torch.Tensor  # int32[R + 1]
    indices: torch.Tensor  # int32[pages of all rows]
    last_len: torch.Tensor  # int32[R] tokens on each row's last page


class FlashInfer(AttentionBackend):
    captures = True

    def __init__(self, pool: KVPool, shapes: Sequence[AttentionShape]) -> None:
        self._pool, self._shapes = pool, tuple(shapes)
        for shape in dict.fromkeys(shapes):
            _refuse(shape)
        device = pool.keys[0].device
        workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._upload = Uploader(device)
        self._kinds = {shape: _Kernels(shape, pool, workspace) for shape in dict.fromkeys(shapes)}

    def reserve(self, max_rows: int, max_row_pages: int) -> None:
        buffers = _Buffers(max_rows, max_rows * max_row_pages, self._pool.keys[0].device)
        for kernels in self._kinds.values():
            kernels.buffers = buffers
        self._locations = torch.zeros(max_rows, dtype=torch.int64, device=self._pool.keys[0].device)

    def plan(self, layout: StepLayout) -> None:
        (self._step_locations,) = self._upload(layout.locations.numpy())
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

    def plan_fixed(self, layout: StepLayout) -> None:
        locations = layout.locations.numpy()
        self._singles = len(locations)
        self._upload.into(self._locations, locations)
        self._step_locations = self._locations[: self._singles]
        pages = self._pages(layout.kv_lens.numpy(), layout.page_table.numpy())
        for kernels in self._kinds.values():
            kernels.plan_fixed(pages)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self._pool.store(layer, self._step_locations, key, value)
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

    def _pages(self, kv_lens: NDArray[np.int32], table: NDArray[np.int32]) -> _Pages:
        page = self._pool.page_size
        counts = -(-kv_lens // page)
        indptr = np.zeros(len(counts) + 1, np.int32)
        np.cumsum(counts, out=indptr[1:])
        width = int(counts.max())
        (indices,) = self._upload(table[:, :width][np.arange(width) < counts[:, None]])
        last = (kv_lens - (counts - 1) * page).astype(np.int32)
        return _Pages(torch.from_numpy(indptr), indices, torch.from_numpy(last))


class _Buffers:
    """What the decode kernels of captured steps read; the steps of all sizes use the same."""

    def __init__(self, max_rows: int, max_indices: int, device: torch.device) -> None:
        self.indptr = torch.zeros(max_rows + 1, dtype=torch.int32, device=device)
        self.indices = torch.zeros(max_indices, dtype=torch.int32, device=device)
        self.last_len = torch.zeros(max_rows, dtype=torch.int32, device=device)


class _Planned:
    """A wrapper of FlashInfer's, and the event after which it may plan again."""

    def __init__(self, wrapper: flashinfer.BatchDecodeWithPagedKVCacheWrapper) -> None:
        self.wrapper = wrapper
        self._copied = torch.cuda.Event()

    def plan(self, *args: object, **more: object) -> None:
        self._copied.synchronize()
        self.wrapper.plan(*args, **more)
        self._copied.record()


class _Kernels:
    """The wrappers for the layers of one shape."""

    buffers: _Buffers

    def __init__(self, shape: AttentionShape, pool: KVPool, workspace: torch.Tensor) -> None:
        self._shape, self._pool, self._workspace = shape, pool, workspace
        self._tensor_cores = shape.num_heads // shape.num_kv_heads >= TENSOR_CORE_GROUP
        self._decode = _Planned(
            flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, use_tensor_cores=self._tensor_cores)
        )
        self._fixed: dict[int, _Planned] = {}
        self._paged = _Planned(flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace))
        self._ragged = _Planned(flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace))

    def plan_decode(self, pages: _Pages) -> None:
        self._plan_decode(self._decode, pages)

    def plan_fixed(self, pages: _Pages) -> None:
        rows = len(pages.last_len)
        if rows not in self._fixed:
            self._fixed[rows] = self._fixed_wrapper(rows)
        self._plan_decode(self._fixed[rows], pages)

    def _fixed_wrapper(self, rows: int) -> _Planned:
        return _Planned(
            flashinfer.BatchDecodeWithPagedKVCacheWrapper(
                self._workspace,
                use_cuda_graph=True,
                use_tensor_cores=self._tensor_cores,
                paged_kv_indptr_buffer=self.buffers.indptr[: rows + 1],
                paged_kv_indices_buffer=self.buffers.indices,
                paged_kv_last_page_len_buffer=self.buffers.last_len[:rows],
            )
        )

    def _plan_decode(self, planned: _Planned, pages: _Pages) -> None:
        shape = self._shape
        heads = shape.num_heads, shape.num_kv_heads, shape.head_dim
        planned.plan(pages.indptr, pages.indices, pages.last_len, *heads, self._pool.page_size, **self._options())
        self._current = planned.wrapper

    def plan_prefill(self, query_lens: NDArray[np.int32], pages: _Pages, *, fresh: bool) -> None:
        """``fresh``: nothing of any row is in the pool yet, so that the step's own keys are all there are."""
        shape = self._shape
        heads = shape.num_heads, shape.num_kv_heads, shape.head_dim
        indptr = torch.from_numpy(np.concatenate(([0], np.cumsum(query_lens))).astype(np.int32))
        self._fresh = fresh
        if fresh:
            self._ragged.plan(indptr, indptr, *heads, causal=True, **self._options())
        else:
            paged = indptr, pages.indptr, pages.indices, pages.last_len
            self._paged.plan(*paged, *heads, self._pool.page_size, causal=True, **self._options())

    def _options(self) -> dict[str, object]:
        shape, dtype = self._shape, self._pool.keys[0].dtype
        return {
            "window_left": -1 if shape.window is None else shape.window - 1,
            "logits_soft_cap": shape.soft_cap,
            "sm_scale": shape.scale,
            "q_data_type": dtype,
            "kv_data_type": dtype,
        }

    def decode(self, query: torch.Tensor, pool: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        out: torch.Tensor = self._current.run(query, pool)
        return out

    def prefill(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pool: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        out: torch.Tensor
        out = self._ragged.wrapper.run(query, key, value) if self._fresh else self._paged.wrapper.run(query, pool)
        return out


def _refuse(shape: AttentionShape) -> None:
    """``ValueError`` for what these kernels do not compute."""
    if shape.value_dim is not None:
        raise ValueError("--attention-backend flashinfer does not do latent attention; use triton or torch_native")
    if shape.has_sinks:
        raise ValueError("--attention-backend flashinfer does not do attention sinks; use triton or torch_native")
    if shape.head_dim not in HEAD_SIZES:
        raise ValueError(
            f"--attention-backend flashinfer does heads of {', '.join(map(str, HEAD_SIZES))} and this model's have "
            f"{shape.head_dim}; use triton or torch_native"
        )
