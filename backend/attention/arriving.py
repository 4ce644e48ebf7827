"""Attention over a pool whose pages may still be on their way from or to the host tier."""

from __future__ import annotations

import torch

from backend.attention.base import AttentionBackend, KVTarget, PaddedSize, StepLayout
from backend.attention.sharing import Sharing
from backend.cache.host_copies import HostCopies
from backend.transfer import FixedMemory


class ArrivingPages(AttentionBackend):
    """``inner``, which begins each layer when that layer's pages have arrived."""

    def __init__(self, inner: AttentionBackend, copies: HostCopies) -> None:
        self._inner = inner
        self._copies = copies
        self.captures, self.shares = inner.captures, inner.shares
        self.captures_prompts = inner.captures_prompts

    def plan(self, layout: StepLayout) -> None:
        self._inner.plan(layout)

    def reserve(self, max_rows: int, max_row_pages: int, memory: FixedMemory) -> None:
        self._inner.reserve(max_rows, max_row_pages, memory)

    def plan_fixed(self, layout: StepLayout) -> None:
        self._copies.wait_all()  # the captured layers wait for nobody
        self._inner.plan_fixed(layout)

    def reserve_padded(self, largest: PaddedSize, max_row_pages: int, memory: FixedMemory) -> None:
        self._inner.reserve_padded(largest, max_row_pages, memory)

    def plan_padded(self, layout: StepLayout, size: PaddedSize) -> None:
        self._copies.wait_all()
        self._inner.plan_padded(layout, size)

    def find_sharing(self, layout: StepLayout) -> Sharing | None:
        return self._inner.find_sharing(layout)

    def plan_shared(self, layout: StepLayout, sharing: Sharing) -> None:
        self._copies.wait_all()
        self._inner.plan_shared(layout, sharing)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self._copies.wait(layer)
        return self._inner.attend(layer, query, key, value, sinks)

    def target(self, layer: int) -> KVTarget | None:
        self._copies.wait(layer)  # the pages may be on their way to the host
        return self._inner.target(layer)

    def attend_stored(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self._inner.attend_stored(layer, query, key, value, sinks)
