"""Which node of the radix tree goes first when pages run out."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from backend.cache.node import Node

Rank = tuple[int, ...]

# What goes first: the lowest rank.
EVICTION_POLICIES: dict[str, Callable[[Node], Rank]] = {
    "lru": lambda node: (node.last_used,),
    "lfu": lambda node: (node.hits, node.last_used),
    "priority": lambda node: (node.priority, node.last_used),
}
MOST_STALE = 4  # entries for each node before the stale ones are dropped


class EvictionQueue:
    """A heap of nodes. An entry goes stale when its node's rank changes or it may not go; :meth:`pop` skips those."""

    def __init__(self, policy: str, may_go: Callable[[Node], bool]) -> None:
        """``policy`` is one of ``EVICTION_POLICIES``; ``ValueError`` otherwise."""
        if policy not in EVICTION_POLICIES:
            raise ValueError(f"eviction policy {policy!r} is unknown; known: {', '.join(EVICTION_POLICIES)}")
        self._rank = EVICTION_POLICIES[policy]
        self._may_go = may_go
        self._heap: list[tuple[Rank, int, Node]] = []  # (rank, entry number, node)
        self._entries = 0

    def __len__(self) -> int:
        return len(self._heap)

    def offer(self, node: Node, nodes: int) -> None:
        """Note the rank of ``node`` if it may go, one of ``nodes`` in all. Due whenever either has changed."""
        if not self._may_go(node):
            return
        self._entries += 1
        heapq.heappush(self._heap, (self._rank(node), self._entries, node))
        if len(self._heap) > 64 + MOST_STALE * nodes:
            self._drop_stale()

    def pop(self) -> Node | None:
        """The node that goes first; None when none may."""
        while self._heap:
            rank, _, node = heapq.heappop(self._heap)
            if self._is_fresh(rank, node):
                return node
        return None

    def _is_fresh(self, rank: Rank, node: Node) -> bool:
        return rank == self._rank(node) and self._may_go(node)

    def _drop_stale(self) -> None:
        fresh = (entry for entry in self._heap if self._is_fresh(entry[0], entry[2]))
        self._heap = list({id(entry[2]): entry for entry in fresh}.values())
        heapq.heapify(self._heap)
