"""One backend for rows with one new token, another for longer rows."""

from __future__ import annotations

import torch

from backend.attention.base import AttentionBackend, KVTarget, StepLayout
from backend.attention.sharing import Sharing


class SplitAttention(AttentionBackend):
    """Both write to the same pool; no row is in both."""

    def __init__(self, decode: AttentionBackend, prefill: AttentionBackend) -> None:
        self._decode, self._prefill = decode, prefill
        self._only: AttentionBackend | None = None  # the one that this step is for
        self.captures, self.shares = decode.captures, decode.shares

    def reserve(self, max_rows: int, max_row_pages: int) -> None:
        self._decode.reserve(max_rows, max_row_pages)

    def plan(self, layout: StepLayout) -> None:
        self._singles = singles = int((layout.query_lens == 1).sum())
        self._only = None
        if singles == len(layout.query_lens):
            self._only = self._decode
        elif not singles:
            self._only = self._prefill
        if singles:
            self._decode.plan(_part(layout, slice(0, singles), slice(0, singles)))
        if singles < len(layout.query_lens):
            self._prefill.plan(_part(layout, slice(singles, None), slice(singles, None)))

    def plan_fixed(self, layout: StepLayout) -> None:
        self._singles, self._only = len(layout.query_lens), self._decode
        self._decode.plan_fixed(layout)

    def target(self, layer: int) -> KVTarget | None:
        """In steps of one kind of row; the layers of others store nothing themselves."""
        return self._only.target(layer) if self._only is not None else None

    def attend_stored(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self._only is None:
            raise RuntimeError("attend_stored() is for the steps that have a target()")
        return self._only.attend_stored(layer, query, key, value, sinks)

    def find_sharing(self, layout: StepLayout) -> Sharing | None:
        return self._decode.find_sharing(layout)

    def plan_shared(self, layout: StepLayout, sharing: Sharing) -> None:
        self._singles, self._only = len(layout.query_lens), self._decode
        self._decode.plan_shared(layout, sharing)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        front, back = slice(0, self._singles), slice(self._singles, None)
        if self._singles == len(query):
            return self._decode.attend(layer, query, key, value, sinks)
        longer = self._prefill.attend(layer, query[back], key[back], value[back], sinks)
        if not self._singles:
            return longer
        return torch.cat((self._decode.attend(layer, query[front], key[front], value[front], sinks), longer))


def _part(layout: StepLayout, rows: slice, tokens: slice) -> StepLayout:
    return StepLayout(layout.query_lens[rows], layout.kv_lens[rows], layout.page_table[rows], layout.locations[tokens])
