"""The workers of a decision, each one looked at only when somebody asks for it: large fleets are never scanned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from policies.cost.leases import LeaseBook
from policies.cost.rates import RateBook
from policies.policy import Candidate


class FleetView(Sequence[Candidate]):
    """A sequence of candidates that also finds one by its worker."""

    def __init__(
        self, workers: Sequence[str], index: dict[str, int], leases: LeaseBook, speeds: RateBook, now: float
    ) -> None:
        self._workers = workers
        self._index = index
        self._leases = leases
        self._speeds = speeds
        self._now = now

    def find(self, worker: str) -> int | None:
        """The position of ``worker``."""
        return self._index.get(worker)

    def __len__(self) -> int:
        return len(self._workers)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> list[Candidate]: ...

    def __getitem__(self, index: int | slice) -> Candidate | list[Candidate]:
        if isinstance(index, slice):
            return [self._candidate(worker) for worker in self._workers[index]]
        return self._candidate(self._workers[index])

    def __iter__(self) -> Iterator[Candidate]:
        return map(self._candidate, self._workers)

    def _candidate(self, worker: str) -> Candidate:
        load = self._leases.load(worker, self._now)
        return Candidate(worker, load, self._speeds.speed(worker, None if load.requests else self._now))


class Finder:
    """Positions of workers in any sequence of candidates."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._view = candidates if isinstance(candidates, FleetView) else None
        self._index = {} if self._view else {candidate.worker: index for index, candidate in enumerate(candidates)}

    def find(self, worker: str) -> int | None:
        return self._view.find(worker) if self._view is not None else self._index.get(worker)
