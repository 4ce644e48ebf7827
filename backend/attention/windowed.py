"""Layers with a window beside layers that see everything, each kind with pages of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backend.attention.base import AttentionBackend, KVTarget, PaddedSize, StepLayout
from backend.attention.sharing import Sharing
from backend.transfer import FixedMemory


class WindowedAttention(AttentionBackend):
    """``whole`` and ``window`` each know their own layers only, counted from 0; ``whole`` is None if there are none.

    ``kinds`` says of each layer of the model whether it has a window.
    """

    def __init__(self, whole: AttentionBackend | None, window: AttentionBackend, kinds: Sequence[bool]) -> None:
        self._whole, self._window = whole, window
        self._parts = [part for part in (whole, window) if part is not None]
        self._layers = [
            (window if sees_window or whole is None else whole, sum(each == sees_window for each in kinds[:layer]))
            for layer, sees_window in enumerate(kinds)
        ]
        self.captures = all(part.captures for part in self._parts)
        self.captures_prompts = all(part.captures_prompts for part in self._parts)
        self.shares = whole is not None and whole.shares

    def reserve(self, max_rows: int, max_row_pages: int, memory: FixedMemory) -> None:
        for part in self._parts:
            part.reserve(max_rows, max_row_pages, memory)

    def reserve_padded(self, largest: PaddedSize, max_row_pages: int, memory: FixedMemory) -> None:
        for part in self._parts:
            part.reserve_padded(largest, max_row_pages, memory)

    # -- plans ------------------------------------------------------------------------------------------------------

    def plan(self, layout: StepLayout) -> None:
        if self._whole is not None:
            self._whole.plan(layout)
        self._window.plan(layout.window or layout)

    def plan_fixed(self, layout: StepLayout) -> None:
        if self._whole is not None:
            self._whole.plan_fixed(layout)
        self._window.plan_fixed(layout.window or layout)

    def plan_padded(self, layout: StepLayout, size: PaddedSize) -> None:
        if self._whole is not None:
            self._whole.plan_padded(layout, size)
        self._window.plan_padded(layout.window or layout, size)

    def find_sharing(self, layout: StepLayout) -> Sharing | None:
        """A window is short: only the layers that see everything gain by reading a prefix once."""
        return None if self._whole is None else self._whole.find_sharing(layout)

    def plan_shared(self, layout: StepLayout, sharing: Sharing) -> None:
        if self._whole is not None:
            self._whole.plan_shared(layout, sharing)
        self._window.plan_fixed(layout.window or layout)

    # -- layers -----------------------------------------------------------------------------------------------------

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        part, own = self._layers[layer]
        return part.attend(own, query, key, value, sinks)

    def target(self, layer: int) -> KVTarget | None:
        part, own = self._layers[layer]
        return part.target(own)

    def attend_stored(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        part, own = self._layers[layer]
        return part.attend_stored(own, query, key, value, sinks)
