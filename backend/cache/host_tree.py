"""The radix cache over two tiers: pages on the device, and copies of them in the larger memory of the host.

What is on the device is closed under prefixes, so that a match is a part on the device followed by one that only the
host has; :meth:`HostTree.restore` brings that one back. A node goes to the host when it is stored (write-through, the
selective one when it was used again) or when it is evicted (write-back), and leaves the tree when neither tier has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.cache.eviction import EvictionQueue
from backend.cache.host_moves import MoveList
from backend.cache.node import NO_PAGES, Node, Tokens
from backend.cache.pages import PageAllocator, Pages
from backend.cache.radix import Match, RadixCache, descendants

# Uses after which a stored node is copied; None: only when it is evicted.
WRITE_POLICIES: dict[str, int | None] = {"write_through": 0, "write_through_selective": 1, "write_back": None}
LOAD_MIN = 10  # tokens; computing fewer again is cheaper than fetching them


@dataclass(frozen=True, slots=True)
class HostSettings:
    """``pages`` of the host's memory, of the device's page size."""

    pages: int
    write_policy: str = "write_through"
    load_min: int = LOAD_MIN


class HostTree(RadixCache):
    """Owns the host's pages too. ``moves`` says what must be copied for its books to be true."""

    def __init__(self, page_size: int, eviction: str, settings: HostSettings) -> None:
        """``ValueError`` for an unknown eviction or write policy."""
        super().__init__(page_size, eviction)
        if settings.write_policy not in WRITE_POLICIES:
            known = ", ".join(WRITE_POLICIES)
            raise ValueError(f"write policy {settings.write_policy!r} is unknown; known: {known}")
        self.host_pages = PageAllocator(settings.pages)
        self.moves = MoveList()
        self.loaded_pages = 0  # since the start
        self._uses_to_save = WRITE_POLICIES[settings.write_policy]
        self._load_min = settings.load_min
        self._host_leaves = EvictionQueue(eviction, _may_leave_host)

    @property
    def used_host_pages(self) -> int:
        return self.host_pages.num_pages - self.host_pages.free_pages

    # -- lookup -----------------------------------------------------------------------------------------------------

    def match(self, tokens: Tokens, namespace: str = "") -> Match:
        """As above; what only the host has is counted in ``absent``, unless it is too little to be fetched."""
        match = super().match(tokens, namespace)
        node, absent = match.node, 0
        while _only_on_host(node) and node.parent is not None:
            absent += len(node.host)
            node = node.parent
        if absent * self.page_size < self._load_min:
            return Match(node, match.pages)
        return Match(match.node, match.pages, absent)

    # -- change -----------------------------------------------------------------------------------------------------

    def insert(self, tokens: Tokens, pages: Pages, namespace: str = "", priority: int = 0) -> Match:
        match = super().insert(tokens, pages, namespace, priority)
        if self._uses_to_save is not None:
            for node in reversed(list(self._path(match.node))):
                if not len(node.host) and node.hits >= self._uses_to_save:
                    self._save(node)
        return match

    def restore(self, node: Node, pages: Pages) -> None:
        """Fetch the part of the path to ``node``, which is locked, that only the host has. ``pages`` (the caller's)
        become the tree's.
        """
        for each, own in self._place_on_device(node, pages):
            self.moves.load(each.host, own)
            self.loaded_pages += len(own)

    def host_books(self) -> tuple[Pages, Pages]:
        """(pages that nodes hold on the host, free ones), for invariant checks."""
        held = [node.host for node in self.nodes()]
        return np.concatenate([NO_PAGES, *held]), self.host_pages.free_list()

    # -- between the tiers --------------------------------------------------------------------------------------------

    def _on_device(self, match: Match, pages: Pages) -> Match:
        """The caller has computed what the host holds: that is as good as fetching it."""
        found = list(self._place_on_device(match.node, pages[len(match.pages) :]))
        return Match(match.node, np.concatenate((match.pages, *(own for _, own in found)))) if found else match

    def _place_on_device(self, node: Node, pages: Pages) -> list[tuple[Node, Pages]]:
        """Give ``pages`` to the nodes up to ``node`` that have none: (node, its pages), from the top."""
        absent = [each for each in self._path(node) if _only_on_host(each)]
        placed = []
        for each in reversed(absent):
            count = len(each.host)
            each.pages, pages = pages[:count].copy(), pages[count:]
            placed.append((each, each.pages))
            self.cached_pages += count
            self.evictable_pages += count if each.locks == 0 else 0
            if each.parent is not None:
                each.parent.children_on_device += 1
            self._offer(each)
            self._log_copy(each, to_host=False)
        return placed

    def _let_go(self, node: Node) -> Pages:
        self.moves.reuse()
        if not len(node.host) and self._uses_to_save is None:
            self._save(node)
        if not len(node.host):
            for each in reversed(list(descendants(node))):  # only the host has them: they are lost without this one
                self._remove(each)
            return self._remove(node)
        pages, node.pages = node.pages, NO_PAGES
        self.cached_pages -= len(pages)
        self.evictable_pages -= len(pages)
        if self.log is not None:
            self.log.removed(pages)
        if node.parent is not None:
            node.parent.children_on_device -= 1
            self._offer(node.parent)
        return pages

    def _save(self, node: Node) -> None:
        """Copy ``node`` to the host if room can be made there."""
        count = len(node.pages)
        if count > self.host_pages.num_pages or not self._make_room(count):
            return
        node.host = self.host_pages.alloc(count)
        if node.parent is not None:
            node.parent.children_on_host += 1
        self.moves.save(node.pages, node.host)
        self._offer(node)
        self._log_copy(node, to_host=True)

    def _make_room(self, count: int) -> bool:
        while self.host_pages.free_pages < count:
            node = self._host_leaves.pop()
            if node is None:
                return False
            if _only_on_host(node):
                self._remove(node)
            else:
                self._forget_host(node)
        return True

    def _forget_host(self, node: Node) -> None:
        self.host_pages.release(node.host)
        if self.log is not None:
            self.log.removed(node.host, on_host=True)
        node.host = NO_PAGES
        if node.parent is not None:
            node.parent.children_on_host -= 1
            self._offer(node.parent)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _split(self, node: Node, at: int) -> Node:
        upper = super()._split(node, at)
        if len(node.host):
            pages = at // self.page_size
            upper.host, node.host = node.host[:pages], node.host[pages:]
            upper.children_on_host = 1
        return upper

    def _offer(self, node: Node) -> None:
        super()._offer(node)
        self._host_leaves.offer(node, self._nodes)

    def _remove(self, node: Node) -> Pages:
        if len(node.host):
            self._forget_host(node)
        return super()._remove(node)

    def _log_copy(self, node: Node, *, to_host: bool) -> None:
        if self.log is None or node.parent is None:
            return
        above, namespace = None, ""
        if node.parent.parent is None:
            namespace = next(name for name, root in self._roots.items() if root is node.parent)
        else:
            above = int(node.parent.pages[-1])
        self.log.copied(above, node.key, node.pages, node.host, namespace, to_host=to_host)


def _only_on_host(node: Node) -> bool:
    return len(node.host) > 0 and not len(node.pages)


def _may_leave_host(node: Node) -> bool:
    return not node.children_on_host and node.locks == 0 and len(node.host) > 0
