"""Consistent hashing with bounded loads: a key has a worker, and a neighbour when that one is too busy.

Each worker lies at many points of a ring; a key belongs to the next point. When a worker comes or goes only its share
of the keys moves. A worker may have at most ``factor`` times the average number of requests; keys of a fuller one
go to the next on the ring (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
"""

from __future__ import annotations

from bisect import bisect
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from xxhash import xxh3_64_intdigest

from policies.cost.fleet_view import view_of
from policies.policy import Candidate

POINTS = 64  # of each worker: shares differ by about an eighth
MAX_SETS = 16  # of workers: models, and workers that sit out


class HashRing:
    """The ring of one set of workers at a time. Those used last are kept: requests for several models take turns."""

    def __init__(self) -> None:
        self._workers: tuple[str, ...] = ()
        self._points: list[int] = []
        self._owners: list[int] = []
        self._built: OrderedDict[tuple[str, ...], tuple[list[int], list[int]]] = OrderedDict()

    def place(self, workers: tuple[str, ...]) -> None:
        """Use these workers from now on."""
        if workers == self._workers:
            return
        built = self._built.get(workers)
        if built is None:
            built = self._built[workers] = _points_of(workers)
            if len(self._built) > MAX_SETS:
                self._built.popitem(last=False)
        self._built.move_to_end(workers)
        self._workers = workers
        self._points, self._owners = built

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


def _points_of(workers: Sequence[str]) -> tuple[list[int], list[int]]:
    """All points in their order, and whose they are."""
    ring = sorted(
        (xxh3_64_intdigest(f"{worker}#{point}".encode()), index)
        for index, worker in enumerate(workers)
        for point in range(POINTS)
    )
    return [point for point, _ in ring], [index for _, index in ring]


def bounded(ring: HashRing, key: int, candidates: Sequence[Candidate], factor: float) -> tuple[int, bool]:
    """The candidate for ``key``, and whether it is the first choice."""
    view = view_of(candidates)
    requests = view.requests()
    ring.place(view.workers)
    room = (sum(requests) + 1) * factor / len(requests)
    for step, index in enumerate(ring.walk(key)):
        if requests[index] < room:
            return index, step == 0
    raise ValueError(f"a load factor under 1 leaves no room: got {factor}")
