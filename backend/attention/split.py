"""One backend for rows with one new token, another for longer rows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from backend.attention.base import AttentionBackend, KVTarget, PaddedSize, StepLayout
from backend.attention.sharing import Sharing
from backend.transfer import FixedMemory, Uploader


class SplitAttention(AttentionBackend):
    """Both write to the same pool; no row is in both. Shared prefixes are for the one that can read them once."""

    def __init__(
        self,
        decode: AttentionBackend,
        prefill: AttentionBackend,
        device: torch.device,
        *,
        either_captures: bool = True,
    ) -> None:
        """``either_captures``: prompts may be captured with ``decode`` where ``prefill`` cannot."""
        self._decode, self._prefill = decode, prefill
        self._sharer = decode if decode.shares or not prefill.captures else prefill
        self.captures, self.shares = decode.captures, self._sharer.shares
        # computes all rows of captured prompts
        self._padded = decode if either_captures and not prefill.captures_prompts else prefill
        self.captures_prompts = self._padded.captures_prompts
        self._upload = Uploader(device)
        self._only: AttentionBackend | None = None  # the one that this step is for
        self._locations: torch.Tensor | None = None  # of a step that is for both
        self._singles = 0

    def reserve(self, max_rows: int, max_row_pages: int, memory: FixedMemory) -> None:
        self._decode.reserve(max_rows, max_row_pages, memory)
        if self._sharer is not self._decode:
            self._sharer.reserve(max_rows, max_row_pages, memory)

    def reserve_padded(self, largest: PaddedSize, max_row_pages: int, memory: FixedMemory) -> None:
        self._padded.reserve_padded(largest, max_row_pages, memory)

    # -- plans ------------------------------------------------------------------------------------------------------

    def plan(self, layout: StepLayout) -> None:
        self._singles = singles = int((layout.query_lens == 1).sum())
        if singles in (0, len(layout.query_lens)):
            self._only = self._decode if singles else self._prefill
            self._only.plan(layout)
            return
        self._only = None
        (self._locations,) = self._upload(layout.locations.numpy())
        self._decode.plan(layout.rows(slice(0, singles)))
        self._prefill.plan(layout.rows(slice(singles, None)))

    def plan_fixed(self, layout: StepLayout) -> None:
        self._only = self._decode
        self._decode.plan_fixed(layout)

    def plan_padded(self, layout: StepLayout, size: PaddedSize) -> None:
        self._only = self._padded
        self._padded.plan_padded(layout, size)

    def find_sharing(self, layout: StepLayout) -> Sharing | None:
        return self._sharer.find_sharing(layout)

    def plan_shared(self, layout: StepLayout, sharing: Sharing) -> None:
        self._only = self._sharer
        self._sharer.plan_shared(layout, sharing)

    # -- layers -----------------------------------------------------------------------------------------------------

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self._only is not None:
            return self._only.attend(layer, query, key, value, sinks)
        return self._both(lambda each, at: each.attend(layer, query[at], key[at], value[at], sinks))

    def target(self, layer: int) -> KVTarget | None:
        if self._only is not None:
            return self._only.target(layer)
        target = self._decode.target(layer)
        if target is None or self._locations is None or self._prefill.target(layer) is None:
            return None
        return target._replace(locations=self._locations)

    def attend_stored(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self._only is not None:
            return self._only.attend_stored(layer, query, key, value, sinks)
        return self._both(lambda each, at: each.attend_stored(layer, query[at], key[at], value[at], sinks))

    def _both(self, attend: Callable[[AttentionBackend, slice], torch.Tensor]) -> torch.Tensor:
        """``attend`` with each backend and the tokens that are its own."""
        front, back = slice(0, self._singles), slice(self._singles, None)
        return torch.cat([attend(self._decode, front), attend(self._prefill, back)])
