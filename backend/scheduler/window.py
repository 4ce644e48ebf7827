"""The pages of layers that see a window: taken when a step needs them, given back when they are behind the window.

Between steps a row holds no more than a window of them, and no more than it has pages of the other kind. The scheduler
keeps the sum of that within the pool, as it does with the other pages, so a step always finds what it fills.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.cache.node import NO_PAGES, Node
from backend.cache.pages import PADDING_PAGE, Pages
from backend.cache.shared_pages import SharedPages
from backend.cache.window_tree import WindowTree
from backend.scheduler.slots import Slots, WindowTable


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """``window`` tokens are seen, ``num_pages`` are there for them; a step computes ``step_tokens`` of prompts."""

    window: int
    num_pages: int
    step_tokens: int

    def long_rows(self, page_size: int) -> int:
        """How many rows beyond the window can run at once."""
        return (self.num_pages - -(-self.step_tokens // page_size)) // self.row_pages(self.window, page_size)

    @staticmethod
    def row_pages(window: int, page_size: int) -> int:
        """The most pages of a row, besides whole ones that a step fills: window, and an edge on either side."""
        return -(-(window - 1) // page_size) + 2

    @staticmethod
    def least_pages(window: int, step_tokens: int, page_size: int, rows: int = 1) -> int:
        """Pages with which ``rows`` rows never wait for any."""
        return rows * WindowSettings.row_pages(window, page_size) + -(-step_tokens // page_size)


class WindowRows:
    """Which window pages each row holds: those of ``slots.window`` from ``first`` to ``end``.

    ``tree`` is the prefix cache, which holds some with them.
    """

    def __init__(self, slots: Slots, settings: WindowSettings, eviction: str) -> None:
        """``ValueError`` for an unknown eviction policy."""
        self.shared = SharedPages(settings.num_pages)
        self.tree = WindowTree(slots.page_size, eviction, settings.window, self.shared)
        self.first = np.zeros(slots.num_slots, np.int32)
        self.end = np.zeros(slots.num_slots, np.int32)
        self.table = np.full_like(slots.page_table, PADDING_PAGE)
        slots.window = WindowTable(self.table, self.first)
        self._slots = slots
        self._page = slots.page_size
        self._most = WindowSettings.row_pages(settings.window, self._page)
        self._for_rows = settings.num_pages - -(-settings.step_tokens // self._page)

    def fits(self, tokens: int, limit: int, share: float) -> bool:
        """Whether a new row of ``tokens`` finds room beside a ``share`` of what it and the others may still grow by.

        It may grow to ``limit`` tokens.
        """
        slots, page = self._slots, self._page
        pages, most = -(-tokens // page), -(-slots.limit[slots.running()] // page)
        left = self._held_by(np.append(most, -(-limit // page))) - self._held_by(np.append(slots.pages, pages))
        return self._held_by(np.append(slots.pages, pages)) + int(share * max(left, 0)) <= self._for_rows

    def has_room(self, rows: NDArray[np.int64]) -> bool:
        """Whether each entry of ``rows`` may have one more page."""
        pages = self._slots.pages.copy()
        np.add.at(pages, rows, 1)
        return self._held_by(pages) <= self._for_rows

    def place(self, slot: int, node: Node) -> None:
        """A new row in ``slot`` goes on behind the prefix that ends with ``node``."""
        cached = self.tree.window_of(node)
        held = cached[cached != PADDING_PAGE]
        self.shared.read(held)
        self.table[slot, : len(cached)] = cached
        self.first[slot], self.end[slot] = len(cached) - len(held), len(cached)

    def cover(self, rows: NDArray[np.int64], ends: NDArray[np.int32]) -> Pages:
        """Pages for ``rows`` up to their tokens ``ends``, which a step is to compute.

        Before that every row lets go of what is behind its window. Steps run in order, so those under way do not mind.
        Returns the pages of the other layers that left the tree, as they are of no use without a window.
        """
        computed = self._slots.computed // self._page
        self._drop_before(np.minimum(np.maximum(computed - self.tree.tail, self.first), self.end))
        wanted = -(-ends // self._page) - self.end[rows]
        if not np.count_nonzero(wanted > 0):
            return NO_PAGES
        slots, places = _each(rows, self.end[rows], np.maximum(wanted, 0))
        useless = self.tree.make_room(len(slots)) if self.shared.free_pages < len(slots) else NO_PAGES
        self.table[slots, places] = self.shared.take(len(slots))
        self.end[rows] += np.maximum(wanted, 0)
        return useless

    def share(self, slot: int, node: Node, count: int) -> None:
        """The row's first ``count`` pages are the tree's, up to ``node``: the row goes on with the tree's."""
        own = self.table[slot, :count].copy()
        kept = self.tree.adopt(node, own)
        differ = (own != PADDING_PAGE) & (own != kept)
        self.shared.read(kept[differ])
        self.table[slot, :count][differ] = kept[differ]
        self.shared.drop(own[differ])

    def vacate(self, slot: int) -> None:
        """The row is over."""
        self.shared.drop(self.held(slot))
        self.table[slot] = PADDING_PAGE
        self.first[slot] = self.end[slot] = 0

    def held(self, slot: int) -> Pages:
        return self.table[slot, self.first[slot] : self.end[slot]]

    def _held_by(self, pages: NDArray[np.int32]) -> int:
        """The most that rows hold between steps which have so many ``pages`` of the other kind."""
        return int(np.minimum(pages, self._most).sum())

    def _drop_before(self, first: NDArray[np.int32]) -> None:
        """Every row holds no page before its ``first`` any more."""
        counts = first - self.first
        if not np.count_nonzero(counts):
            return
        slots, places = _each(np.arange(len(first)), self.first, counts)
        self.shared.drop(self.table[slots, places])
        self.table[slots, places] = PADDING_PAGE
        self.first[:] = first


def _each(
    rows: NDArray[np.int64], starts: NDArray[np.int32], counts: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``counts`` places from ``starts`` on for each row: the row and the place of each."""
    nth = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(rows, counts), np.repeat(starts, counts) + nth
