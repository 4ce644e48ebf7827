"""Consistent hashing with bounded loads: a key has a worker, and a neighbour when that one is too busy.

Each worker lies at many points of a ring; a key belongs to the next point. When a worker comes or goes only its share
of the keys moves. A worker may have at most ``factor`` times the average number of requests; keys of a fuller one
go to the next on the ring (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence

from xxhash import xxh3_64_intdigest

from policies.policy import Candidate

POINTS = 64  # of each worker: shares differ by about an eighth


class HashRing:
    """The ring of one set of workers; it is built anew when the set changes."""

    def __init__(self) -> None:
        self._workers: tuple[str, ...] = ()
        self._points: list[int] = []
        self._owners: list[int] = []

    def place(self, workers: tuple[str, ...]) -> None:
        """Use these workers from now on."""
        if workers == self._workers:
            return
        self._workers = workers
        ring = sorted(
            (xxh3_64_intdigest(f"{worker}#{point}".encode()), index)
            for index, worker in enumerate(workers)
            for point in range(POINTS)
        )
        self._points = [point for point, _ in ring]
        self._owners = [index for _, index in ring]

    def walk(self, key: int) -> Iterator[int]:
        """Positions of workers, each once, in the order in which they are asked to serve ``key``."""
        seen: set[int] = set()
        start = bisect(self._points, key)
        for step in range(len(self._owners)):
            owner = self._owners[(start + step) % len(self._owners)]
            if owner not in seen:
                seen.add(owner)
                yield owner
                if len(seen) == len(self._workers):
                    return


def bounded(ring: HashRing, key: int, candidates: Sequence[Candidate], factor: float) -> tuple[int, bool]:
    """The candidate for ``key``, and whether it is the first choice."""
    ring.place(tuple(candidate.worker for candidate in candidates))
    total = sum(candidate.load.requests for candidate in candidates)
    most = math.ceil((total + 1) * factor / len(candidates))
    for step, index in enumerate(ring.walk(key)):
        if candidates[index].load.requests < most:
            return index, step == 0
    raise ValueError(f"a load factor under 1 leaves no room: got {factor}")
