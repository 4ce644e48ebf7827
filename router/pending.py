"""Blocks that are about to be cached: of prompts under way, whose pages stay until they end.

Events tell what is cached when it is; the siblings of a burst come before that, and belong with the first of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

from policies.prefix.block_index import Chain


class PendingBlocks:
    """How many prompts under way have a block, by worker."""

    def __init__(self) -> None:
        self._blocks: dict[str, Counter[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._blocks.values()))

    def add(self, url: str, chains: Mapping[int, Chain]) -> None:
        """A prompt was sent to ``url``."""
        counts = self._blocks.setdefault(url, Counter())
        for chain in chains.values():
            counts.update(chain)

    def remove(self, url: str, chains: Mapping[int, Chain]) -> None:
        """It is over."""
        counts = self._blocks.get(url)
        if counts is None:
            return
        for chain in chains.values():
            for block in chain:
                if counts[block] > 1:
                    counts[block] -= 1
                else:
                    del counts[block]
        if not counts:
            del self._blocks[url]

    def tokens(self, url: str, chains: Mapping[int, Chain]) -> int:
        """How much of a prompt those under way begin with.

        A block's hash stands for all blocks before it, so the blocks that match come first and can be bisected.
        """
        counts = self._blocks.get(url)
        if not counts:
            return 0
        return max(
            (size * bisect_left(chain, True, key=lambda block: block not in counts) for size, chain in chains.items()),
            default=0,
        )
