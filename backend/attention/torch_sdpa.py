"""Attention with ``torch.nn.functional.scaled_dot_product_attention``: runs anywhere, and is the reference.

Rows with one new token are attended to as one padded batch, with the query heads of a group taken as query positions
(so grouped-query attention needs no copy of the keys). Longer rows are attended to one by one. The only row of a step
on the CPU, with one new token, is read where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from backend.attention.base import AttentionBackend, AttentionShape, StepLayout
from backend.attention.lone_row import LoneRow
from backend.attention.scores import attention
from backend.cache.kv_pool import KVPool

MASKED = float("-inf")
Window = int | None


@dataclass(frozen=True, slots=True)
class _LongRow:
    """A row with several new tokens."""

    query_len: int
    kv_len: int
    pages: torch.Tensor  # int64[pages of the row]
    masks: dict[Window, torch.Tensor | None]  # [query_len, kv_len] to add to the scores; None: causal from the start

    @property
    def is_fresh(self) -> bool:
        """Nothing of it is in the pool yet: the step's own keys are all there are."""
        return self.query_len == self.kv_len


class TorchSDPA(AttentionBackend):
    def __init__(self, pool: KVPool, shapes: Sequence[AttentionShape]) -> None:
        self._pool = pool
        self._shapes = tuple(shapes)
        self._windows = tuple(dict.fromkeys(shape.window for shape in shapes))
        self._device, self._dtype = pool.keys[0].device, pool.keys[0].dtype

    def plan(self, layout: StepLayout) -> None:
        page = self._pool.page_size
        self._locations = layout.locations.to(self._device)
        query_lens = layout.query_lens.tolist()
        kv_lens = layout.kv_lens.tolist()
        self._singles = self.batched_rows(query_lens)
        self._lone: LoneRow | None = None
        if self._singles == len(query_lens) == 1 and self._device.type == "cpu":
            self._lone = LoneRow.of(kv_lens[0], layout.page_table[0], page)
            return
        table = layout.page_table.to(self._device, torch.int64)
        if self._singles:
            self._plan_singles(kv_lens[: self._singles], table[: self._singles])
        self._long = [
            self._long_row(query_lens[i], kv_lens[i], table[i, : -(-kv_lens[i] // page)])
            for i in range(self._singles, len(query_lens))
        ]

    def batched_rows(self, query_lens: Sequence[int]) -> int:
        """How many rows at the front, of one token each, are attended to as one batch."""
        return next((i for i, length in enumerate(query_lens) if length > 1), len(query_lens))

    def _plan_singles(self, kv_lens: list[int], table: torch.Tensor) -> None:
        page, (keys, values) = self._pool.page_size, (self._pool.keys[0], self._pool.values[0])
        pages = -(-max(kv_lens) // page)
        self._single_pages = table[:, :pages].reshape(-1)
        positions = torch.arange(pages * page, device=self._device)
        lens = torch.tensor(kv_lens, device=self._device)[:, None]
        self._single_masks = {}
        for window in self._windows:
            visible = positions < lens if window is None else (positions < lens) & (positions >= lens - window)
            self._single_masks[window] = self._additive(visible)[:, None, None, :]
        count = len(self._single_pages)
        self._gathered = (keys.new_empty((count, *keys.shape[1:])), values.new_empty((count, *values.shape[1:])))

    def _long_row(self, query_len: int, kv_len: int, pages: torch.Tensor) -> _LongRow:
        masks = {window: self._causal_mask(query_len, kv_len, window) for window in self._windows}
        return _LongRow(query_len, kv_len, pages, masks)

    def _causal_mask(self, query_len: int, kv_len: int, window: Window) -> torch.Tensor | None:
        """The last query sees everything, the one before all but one, and so on, each no further than ``window``."""
        if query_len == kv_len and (window is None or window >= kv_len):
            return None
        keys = torch.arange(kv_len, device=self._device)
        queries = keys[kv_len - query_len :, None]
        visible = keys <= queries
        return self._additive(visible if window is None else visible & (keys > queries - window))

    def _additive(self, visible: torch.Tensor) -> torch.Tensor:
        return torch.zeros(visible.shape, dtype=self._dtype, device=self._device).masked_fill_(~visible, MASKED)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self._pool.store(layer, self._locations, key, value)
        if self._lone is not None:
            return self._attend_lone(layer, query, self._lone, sinks)
        out = query.new_empty((*query.shape[:2], value.shape[-1]))
        if self._singles:
            self._attend_singles(layer, query[: self._singles], sinks, out[: self._singles])
        start = self._singles
        for row in self._long:
            rows = slice(start, start + row.query_len)
            if row.is_fresh:
                keys, values = key[rows], value[rows]
            else:
                keys = self._pool.keys[layer].index_select(0, row.pages).flatten(0, 1)[: row.kv_len]
                values = self._pool.values[layer].index_select(0, row.pages).flatten(0, 1)[: row.kv_len]
            out[rows] = self._attend_long(layer, query[rows], keys, values, row, sinks)
            start += row.query_len
        return out.flatten(1)

    def _attend_singles(self, layer: int, query: torch.Tensor, sinks: torch.Tensor | None, out: torch.Tensor) -> None:
        rows, shape = query.shape[0], self._shapes[layer]
        keys, values = self._gathered
        torch.index_select(self._pool.keys[layer], 0, self._single_pages, out=keys)
        torch.index_select(self._pool.values[layer], 0, self._single_pages, out=values)
        attended = attention(
            query.view(rows, shape.num_kv_heads, -1, query.shape[-1]),
            keys.view(rows, -1, *keys.shape[2:]).transpose(1, 2),
            values.view(rows, -1, *values.shape[2:]).transpose(1, 2),
            shape,
            mask=self._single_masks[shape.window],
            sinks=None if sinks is None else sinks.view(shape.num_kv_heads, -1),
        )
        out.copy_(attended.reshape(out.shape))

    def _attend_lone(self, layer: int, query: torch.Tensor, row: LoneRow, sinks: torch.Tensor | None) -> torch.Tensor:
        shape = self._shapes[layer]
        attended = attention(
            query.view(1, shape.num_kv_heads, -1, query.shape[-1]),
            row.seen(self._pool.keys[layer], shape.window),
            row.seen(self._pool.values[layer], shape.window),
            shape,
            mask=None,
            sinks=None if sinks is None else sinks.view(shape.num_kv_heads, -1),
        )
        return attended.reshape(1, -1)

    def _attend_long(
        self,
        layer: int,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        row: _LongRow,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        shape = self._shapes[layer]
        group = shape.num_heads // shape.num_kv_heads
        # Copied per group: torch's own enable_gqa is up to four times slower in bfloat16 on the CPU.
        attended = attention(
            query.transpose(0, 1)[None],
            keys.transpose(0, 1).repeat_interleave(group, 0)[None],
            values.transpose(0, 1).repeat_interleave(group, 0)[None],
            shape,
            mask=row.masks[shape.window],
            causal=row.masks[shape.window] is None,
            sinks=None if sinks is None else sinks[:, None],
        )
        return attended[0].transpose(0, 1)
