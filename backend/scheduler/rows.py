"""The memory behind running requests: slots, pages and the radix tree, and how a row moves between them.

A row's pages are the tree's up to ``tree_pages`` and its own after that. They come in through :meth:`Rows.place` and
:meth:`Rows.grow` and go back through :meth:`Rows.vacate` alone.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.cache.host_moves import Transfers
from backend.cache.host_tree import HostSettings, HostTree
from backend.cache.pages import PageAllocator, Pages
from backend.cache.radix import RadixCache
from backend.cache.spent import Spent
from backend.scheduler.queue import Request
from backend.scheduler.slots import Slots
from backend.scheduler.window import WindowRows, WindowSettings


class Cached(NamedTuple):
    """How many known tokens of a placed request the cache holds, and how many of them come from the host."""

    tokens: int
    from_host: int


class Reserve(NamedTuple):
    """What must stay free beside a new row: whole pages, and the share that is expected of what rows may still grow."""

    pages: int
    share: float


class Rows:
    """Owns the slots, the free pages and the radix tree."""

    def __init__(
        self,
        *,
        num_slots: int,
        context_length: int,
        num_pages: int,
        page_size: int,
        keep_prefixes: bool,
        eviction: str,
        share_outputs: bool = True,
        host: HostSettings | None = None,
        window: WindowSettings | None = None,
    ) -> None:
        """``window`` is for models whose layers with a window have pages of their own; not beside ``host``."""
        self.page_size = page_size
        self.slots = Slots(num_slots, context_length, page_size)
        self.pages = PageAllocator(num_pages)
        self.evicted_pages = 0
        self.evictions, self.load_backs = Spent(), Spent()
        self._keep_prefixes = keep_prefixes
        self._share_outputs = share_outputs
        self._eviction = eviction
        self._host_settings = host
        self._window_settings = window
        self._plant()

    def _plant(self) -> None:
        """An empty tree."""
        host, window = self._host_settings, self._window_settings
        self.host = HostTree(self.page_size, self._eviction, host) if host is not None else None
        self.window = WindowRows(self.slots, window, self._eviction) if window is not None else None
        tree = self.host if self.window is None else self.window.tree
        self.radix = RadixCache(self.page_size, self._eviction) if tree is None else tree

    @property
    def room(self) -> int:
        """Pages that are free or can be made free."""
        return self.pages.free_pages + self.radix.evictable_pages

    @property
    def idle(self) -> bool:
        """Every slot is free."""
        return self.slots.free_slots == self.slots.num_slots

    def fits(self, request: Request, limit: int, reserve: Reserve) -> bool:
        """Whether :meth:`place` would find room."""
        if not self.slots.free_slots or not self._window_fits(request, limit, reserve):
            return False
        # Locking the cached part takes at most as many pages from the evictable ones as it spares.
        return self.room >= -(-len(request.tokens) // self.page_size) + reserve.pages

    def place(self, request: Request, limit: int, reserve: Reserve) -> Cached | None:
        """Give ``request`` a slot, its cached prefix and pages for its known tokens.

        ``reserve`` must stay beside them. Returns how much is cached; without room None, with nothing changed.
        """
        slots, tokens = self.slots, request.tokens
        if not self._window_fits(request, limit, reserve):
            return None
        cacheable = request.cacheable if self._share_outputs else min(request.cacheable, request.prompt_len)
        match = self.radix.match(tokens[:cacheable], request.namespace)
        self.radix.lock(match.node)
        needed = -(-len(tokens) // self.page_size) - len(match.pages)
        if self.room < needed + reserve.pages:
            self.radix.unlock(match.node)
            return None
        slot = slots.occupy(request.uid, tokens, request.prompt_len, limit)
        slots.set_sampling(slot, request.sampling, request.seed, request.stop_ids)
        slots.wants_logprobs[slot] = request.logprobs is not None
        slots.pooled[slot] = bool(request.pooling)
        fresh = self._alloc(needed)
        if self.host is not None and match.absent:
            started = time.perf_counter()
            self.host.restore(match.node, fresh[: match.absent])
            self.load_backs.count(started)
        slots.append_pages(slot, match.pages)
        slots.append_pages(slot, fresh)
        slots.tree_pages[slot] = len(match.pages) + match.absent
        slots.computed[slot] = slots.tree_pages[slot] * self.page_size
        if self.window is not None:
            self.window.place(slot, match.node)
        request.slot, request.node = slot, match.node
        return Cached(int(slots.computed[slot]), match.absent * self.page_size)

    def cover(self, rows: NDArray[np.int64], ends: NDArray[np.int32]) -> None:
        """Before a step is launched that computes ``rows`` up to their tokens ``ends``."""
        if self.window is not None:
            freed = self.window.cover(rows, ends)
            self.evicted_pages += len(freed)
            self.pages.release(freed)

    def take_transfers(self) -> Transfers | None:
        """What the next step must have copied between the device and the host."""
        return None if self.host is None else self.host.moves.take()

    def outgrown(self) -> NDArray[np.int64]:
        """Running rows whose next tokens have no page, each as often as pages are missing."""
        slots = self.slots
        rows = slots.running()
        short = slots.known[rows] > slots.pages[rows] * self.page_size
        if not np.count_nonzero(short):
            return rows[:0]
        rows = rows[short]
        rows = rows[slots.missing(rows) > 0]
        return np.repeat(rows, -(-slots.known[rows] // self.page_size) - slots.pages[rows])

    def has_room(self, rows: NDArray[np.int64]) -> bool:
        """Whether there is one more page for each entry of ``rows``."""
        if not len(rows):
            return True
        return len(rows) <= self.room and (self.window is None or self.window.has_room(rows))

    def grow(self, rows: NDArray[np.int64]) -> None:
        """One more page for each entry of ``rows`` (ascending); the caller has checked :meth:`has_room`."""
        slots = self.slots
        nth = np.arange(len(rows)) - np.searchsorted(rows, rows)
        slots.page_table[rows, slots.pages[rows] + nth] = self._alloc(len(rows))
        np.add.at(slots.pages, rows, 1)

    def share_prefix(self, slot: int, request: Request, computed: int) -> None:
        """Hand the full pages of the row's first ``computed`` tokens to the tree, whose steps have all been settled.

        The row goes on with the tree's pages, not its duplicates.
        """
        if not self._share_outputs:  # they were computed one by one, and would be as a prompt's block elsewhere
            computed = min(computed, int(self.slots.prompt_len[slot]))
        count = computed // self.page_size
        if not self._keep_prefixes or count < self.slots.tree_pages[slot]:
            return
        slots = self.slots
        own = slots.row_pages(slot)[:count].copy()
        shared = self.radix.insert(
            slots.tokens[slot, : count * self.page_size], own, request.namespace, request.priority
        )
        self.radix.lock(shared.node)
        if request.node is not None:
            self.radix.unlock(request.node)
        request.node = shared.node
        self.pages.release(own[own != shared.pages])
        slots.page_table[slot, :count] = shared.pages
        slots.tree_pages[slot] = count
        if self.window is not None:
            self.window.share(slot, shared.node, count)

    def vacate(self, slot: int, request: Request) -> None:
        """Give back everything of a row that no launched step refers to; what it computed stays in the tree."""
        slots = self.slots
        self.share_prefix(slot, request, int(slots.computed[slot]))
        self.pages.release(slots.row_pages(slot)[slots.tree_pages[slot] :])
        if request.node is not None:
            self.radix.unlock(request.node)
            request.node = None
        if self.window is not None:
            self.window.vacate(slot)
        slots.vacate(slot)

    def flush(self) -> None:
        """Empty the tree, but for what running rows read."""
        self.pages.release(self.radix.reset())

    def reset(self) -> None:
        """Forget all of it, whatever the books say. Only while no request runs and no step is under way."""
        log = self.radix.log
        self.slots.reset()
        self.pages = PageAllocator(self.pages.num_pages)
        self._plant()
        self.radix.log = log
        if log is not None:
            log.cleared()

    def _window_fits(self, request: Request, limit: int, reserve: Reserve) -> bool:
        return self.window is None or self.window.fits(len(request.tokens), limit, reserve.share)

    def _alloc(self, count: int) -> Pages:
        missing = count - self.pages.free_pages
        if missing > 0:
            started = time.perf_counter()
            freed = self.radix.evict(missing)
            self.evicted_pages += len(freed)
            self.pages.release(freed)
            self.evictions.count(started)
        return self.pages.alloc(count)
