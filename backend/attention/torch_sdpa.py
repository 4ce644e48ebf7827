"""Attention with ``torch.nn.functional.scaled_dot_product_attention``: runs anywhere, and is the reference.

Rows with one new token are attended to as one padded batch, with the query heads of a group taken as query positions
(so grouped-query attention needs no copy of the keys). Longer rows are attended to one by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from backend.attention.base import AttentionBackend, AttentionShape, StepLayout
from backend.cache.kv_pool import KVPool

MASKED = float("-inf")


class TorchSDPA(AttentionBackend):
    def __init__(self, pool: KVPool, shape: AttentionShape) -> None:
        self._pool = pool
        self._shape = shape
        self._device = pool.keys[0].device

    def plan(self, layout: StepLayout) -> None:
        page = self._pool.page_size
        self._locations = layout.locations.to(self._device)
        query_lens = layout.query_lens.tolist()
        kv_lens = layout.kv_lens.tolist()
        self._singles = next((i for i, length in enumerate(query_lens) if length > 1), len(query_lens))
        table = layout.page_table.to(self._device, torch.int64)
        self._plan_singles(kv_lens[: self._singles], table[: self._singles])
        self._long: list[tuple[int, int, torch.Tensor, torch.Tensor | None]] = []
        for i in range(self._singles, len(query_lens)):
            query_len, kv_len = query_lens[i], kv_lens[i]
            pages = table[i, : -(-kv_len // page)]
            mask = None if query_len == kv_len else self._causal_mask(query_len, kv_len)
            self._long.append((query_len, kv_len, pages, mask))

    def _plan_singles(self, kv_lens: list[int], table: torch.Tensor) -> None:
        if not kv_lens:
            return
        page = self._pool.page_size
        pages = -(-max(kv_lens) // page)
        self._single_pages = table[:, :pages].reshape(-1)
        lens = torch.tensor(kv_lens, device=self._device)
        visible = torch.arange(pages * page, device=self._device) < lens[:, None]
        dtype = self._pool.keys[0].dtype
        self._single_mask = torch.zeros(visible.shape, dtype=dtype, device=self._device).masked_fill_(~visible, MASKED)
        shape = (len(self._single_pages), page, self._shape.num_kv_heads, self._shape.head_dim)
        self._gathered = tuple(torch.empty(shape, dtype=dtype, device=self._device) for _ in range(2))

    def _causal_mask(self, query_len: int, kv_len: int) -> torch.Tensor:
        """bool[query_len, kv_len]: the last query sees everything, the one before all but one, and so on."""
        positions = torch.arange(kv_len - query_len, kv_len, device=self._device)
        return torch.arange(kv_len, device=self._device) <= positions[:, None]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        self._pool.store(layer, self._locations, key, value)
        out = torch.empty_like(query)
        if self._singles:
            self._attend_singles(layer, query[: self._singles], out[: self._singles])
        start = self._singles
        for query_len, kv_len, pages, mask in self._long:
            rows = slice(start, start + query_len)
            if mask is None:
                keys, values = key[rows], value[rows]
            else:
                keys = self._pool.keys[layer].index_select(0, pages).flatten(0, 1)[:kv_len]
                values = self._pool.values[layer].index_select(0, pages).flatten(0, 1)[:kv_len]
            out[rows] = self._attend_long(query[rows], keys, values, mask)
            start += query_len
        return out.flatten(1)

    def _attend_singles(self, layer: int, query: torch.Tensor, out: torch.Tensor) -> None:
        rows, shape = query.shape[0], self._shape
        keys, values = self._gathered
        torch.index_select(self._pool.keys[layer], 0, self._single_pages, out=keys)
        torch.index_select(self._pool.values[layer], 0, self._single_pages, out=values)
        grouped = (rows, shape.num_kv_heads, -1, shape.head_dim)
        attended = F.scaled_dot_product_attention(
            query.view(grouped),
            keys.view(rows, -1, shape.num_kv_heads, shape.head_dim).transpose(1, 2),
            values.view(rows, -1, shape.num_kv_heads, shape.head_dim).transpose(1, 2),
            attn_mask=self._single_mask[:, None, None, :],
            scale=shape.scale,
        )
        out.copy_(attended.reshape(out.shape))

    def _attend_long(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        group = self._shape.num_heads // self._shape.num_kv_heads
        # Copied per group: torch's own enable_gqa is up to four times slower in bfloat16 on the CPU.
        keys = keys.transpose(0, 1).repeat_interleave(group, 0)
        values = values.transpose(0, 1).repeat_interleave(group, 0)
        attended = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=self._shape.scale,
        )
        return attended[0].transpose(0, 1)
