"""FlashInfer's wrappers for the layers of one shape: planned once a step, run once a layer.

A plan is made on the CPU and copied to the GPU from memory that belongs to the wrapper, so a wrapper plans again only
when that copy has been made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import flashinfer
import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import AttentionShape
from backend.cache.kv_pool import KVPool

TENSOR_CORE_GROUP = 4  # query heads a key head from which matrix products pay in decoding
MAX_GROUPS = 16  # of rows that share a prefix

Pool = tuple[torch.Tensor, torch.Tensor]  # one layer's pages of keys and of values


@dataclass(frozen=True, slots=True)
class Pages:
    """Which pages the rows read, as FlashInfer wants it: ``indices`` on the GPU, the rest on the CPU."""

    indptr: torch.Tensor  # int32[R + 1]
    indices: torch.Tensor  # int32[pages of all rows]
    last_len: torch.Tensor  # int32[R] tokens on each row's last page


@dataclass(frozen=True, slots=True)
class FixedPages:
    """:class:`Pages` on the GPU, in memory that never moves, for captured steps."""

    indptr: torch.Tensor
    indices: torch.Tensor  # int32[as many as there may be]
    last_len: torch.Tensor


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What groups of adjacent rows share: ``bounds`` int32[MAX_GROUPS + 1] on the CPU, and the pages of each group."""

    bounds: torch.Tensor
    pages: Pages


class _Planned:
    """A wrapper, and the event after which it may plan again."""

    def __init__(self, wrapper: flashinfer.BatchDecodeWithPagedKVCacheWrapper) -> None:
        self.wrapper = wrapper
        self.used = False
        self._copied = torch.cuda.Event()

    def plan(self, make: Callable[..., None], *args: object, **more: object) -> None:
        self._copied.synchronize()
        make(*args, **more)
        self._copied.record()
        self.used = True


class Kernels:
    """Made for one shape; ``workspace`` is shared by all wrappers, since everything runs on one stream."""

    def __init__(self, shape: AttentionShape, pool: KVPool, workspace: torch.Tensor) -> None:
        self._shape, self._pool, self._workspace = shape, pool, workspace
        self._tensor_cores = shape.num_heads // shape.num_kv_heads >= TENSOR_CORE_GROUP
        self._decode = _Planned(
            flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, use_tensor_cores=self._tensor_cores)
        )
        self._paged = _Planned(flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace))
        self._ragged = _Planned(flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace))
        self._fixed: dict[int, _Planned] = {}
        self._shared: dict[int, _Planned] = {}
        self._current: _Planned = self._decode
        self._prefix: _Planned | None = None  # of this step

    # -- plans ------------------------------------------------------------------------------------------------------

    def plan_decode(self, pages: Pages) -> None:
        where = pages.indptr, pages.indices, pages.last_len
        self._current, self._prefix = self._decode, None
        self._decode.plan(self._decode.wrapper.plan, *where, *self._sizes, self._pool.page_size, **self._options)

    def plan_fixed(self, pages: Pages, fixed: FixedPages) -> None:
        """``fixed`` holds what ``pages`` says already; always the same memory for the same number of rows."""
        rows = len(pages.last_len)
        if rows not in self._fixed:
            self._fixed[rows] = self._fixed_wrapper(fixed)
        self._current, self._prefix = planned, _ = self._fixed[rows], None
        where = pages.indptr, pages.indices, pages.last_len
        if planned.used:
            make = flashinfer.fast_decode_plan  # copies nothing but its plan
            planned.plan(make, planned.wrapper, *where, *self._sizes, self._pool.page_size, **self._options)
        else:  # the first time loads the kernels
            planned.plan(planned.wrapper.plan, *where, *self._sizes, self._pool.page_size, **self._options)

    def plan_shared(self, prefixes: Prefixes, rows: int) -> None:
        """After :meth:`plan_fixed` with what is behind the prefixes."""
        if rows not in self._shared:
            self._shared[rows] = self._shared_wrapper()
        self._prefix = planned = self._shared[rows]
        pages = prefixes.pages
        where = prefixes.bounds, pages.indptr, pages.indices, pages.last_len
        planned.plan(planned.wrapper.plan, *where, *self._sizes, self._pool.page_size, causal=False, **self._options)

    def plan_prefill(self, query_lens: NDArray[np.int32], pages: Pages, *, fresh: bool) -> None:
        """``fresh``: nothing of any row is in the pool yet, so that the step's own keys are all there are."""
        # FlashInfer copies from these itself: a copy from ordinary memory would make the host wait.
        indptr = torch.from_numpy(np.concatenate(([0], np.cumsum(query_lens))).astype(np.int32)).pin_memory()
        self._fresh = fresh
        if fresh:
            self._ragged.plan(self._ragged.wrapper.plan, indptr, indptr, *self._sizes, causal=True, **self._options)
        else:
            where = indptr, pages.indptr.pin_memory(), pages.indices, pages.last_len.pin_memory()
            sizes = (*self._sizes, self._pool.page_size)
            self._paged.plan(self._paged.wrapper.plan, *where, *sizes, causal=True, **self._options)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self._shape.num_heads, self._shape.num_kv_heads, self._shape.head_dim

    @property
    def _options(self) -> dict[str, object]:
        shape, dtype = self._shape, self._pool.keys[0].dtype
        return {
            "window_left": -1 if shape.window is None else shape.window - 1,
            "logits_soft_cap": shape.soft_cap,
            "sm_scale": shape.scale,
            "q_data_type": dtype,
            "kv_data_type": dtype,
        }

    def _fixed_wrapper(self, fixed: FixedPages) -> _Planned:
        return _Planned(
            flashinfer.BatchDecodeWithPagedKVCacheWrapper(
                self._workspace,
                use_cuda_graph=True,
                use_tensor_cores=self._tensor_cores,
                paged_kv_indptr_buffer=fixed.indptr,
                paged_kv_indices_buffer=fixed.indices,
                paged_kv_last_page_len_buffer=fixed.last_len,
            )
        )

    def _shared_wrapper(self) -> _Planned:
        device, most = self._workspace.device, self._pool.num_pages
        numbers = [torch.zeros(n, dtype=torch.int32, device=device) for n in (MAX_GROUPS + 1, MAX_GROUPS + 1, most)]
        last = torch.zeros(MAX_GROUPS, dtype=torch.int32, device=device)
        return _Planned(
            flashinfer.BatchPrefillWithPagedKVCacheWrapper(
                self._workspace,
                use_cuda_graph=True,
                qo_indptr_buf=numbers[0],
                paged_kv_indptr_buf=numbers[1],
                paged_kv_indices_buf=numbers[2],
                paged_kv_last_page_len_buf=last,
                backend="fa2",  # the one whose plan fits a captured step
            )
        )

    # -- runs -------------------------------------------------------------------------------------------------------

    def decode(self, query: torch.Tensor, pool: Pool) -> torch.Tensor:
        """``[R, heads, head_dim]`` of rows with one token."""
        if self._prefix is None:
            out: torch.Tensor = self._current.wrapper.run(query, pool)
            return out
        out, log = self._current.wrapper.run(query, pool, return_lse=True)
        prefix_out, prefix_log = self._prefix.wrapper.run(query, pool, return_lse=True)
        flashinfer.merge_state_in_place(out, log, prefix_out, prefix_log)
        return out

    def prefill(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pool: Pool) -> torch.Tensor:
        """``[T, heads, head_dim]`` of longer rows."""
        fresh = self._fresh
        out: torch.Tensor
        out = self._ragged.wrapper.run(query, key, value) if fresh else self._paged.wrapper.run(query, pool)
        return out
