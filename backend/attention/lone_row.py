"""A step of one row with one new token, on the CPU: nothing is padded or masked, and as a rule nothing is copied."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class LoneRow:
    """Where the row's keys and values are."""

    kv_len: int
    pages: torch.Tensor | None  # int64[pages of the row]; None: they lie one behind the other in the pool
    start: int  # of its first token, in the pool or among what is gathered from it

    @staticmethod
    def of(kv_len: int, table: torch.Tensor, page_size: int) -> LoneRow:
        """``table`` is the row of the page table (int32)."""
        pages = table[: -(-kv_len // page_size)].long()
        first = int(pages[0])
        if torch.equal(pages, torch.arange(first, first + len(pages))):
            return LoneRow(kv_len, None, first * page_size)
        return LoneRow(kv_len, pages, 0)

    def seen(self, stored: torch.Tensor, window: int | None) -> torch.Tensor:
        """What the token sees of a layer's keys or values, ``[1, kv_heads, tokens, head_dim]``.

        ``stored`` are those of the pool, ``[pages, page_size, kv_heads, head_dim]``.
        """
        if self.pages is not None:
            stored = stored.index_select(0, self.pages)
        count = self.kv_len if window is None else min(window, self.kv_len)
        _, token, head, number = stored.stride()
        start = stored.storage_offset() + (self.start + self.kv_len - count) * token
        return stored.as_strided((1, stored.shape[2], count, stored.shape[3]), (0, head, token, number), start)
