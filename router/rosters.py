"""The fleet as placement sees it, made once for each set of workers that requests are chosen from.

Most decisions are between the same workers, so what can be looked up beforehand is: each one by its address, and its
place in the books.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policies.cost.fleet_view import Roster
from policies.cost.leases import LeaseBook
from policies.cost.rates import RateBook
from router.fleet.worker import Worker

MAX_SETS = 64  # models, and workers left out after failures: beyond it all are made anew


class Listing(NamedTuple):
    """One set of workers."""

    by_url: dict[str, Worker]
    roster: Roster


class Rosters:
    """Listings by their workers."""

    def __init__(self) -> None:
        self._listings: dict[tuple[Worker, ...], Listing] = {}
        self._last: Sequence[Worker] = ()
        self._last_listing: Listing | None = None

    def of(self, workers: Sequence[Worker], leases: LeaseBook, speeds: RateBook) -> Listing:
        """The listing of ``workers``, in their order."""
        if self._last_listing is not None and workers == self._last:
            return self._last_listing
        key = tuple(workers)
        listing = self._listings.get(key)
        if listing is None:
            if len(self._listings) >= MAX_SETS:
                self._listings.clear()
            by_url = {worker.url: worker for worker in workers}
            listing = self._listings[key] = Listing(by_url, Roster(list(by_url), leases, speeds))
        self._last, self._last_listing = list(workers), listing
        return listing

    def clear(self) -> None:
        """A worker is gone."""
        self._listings.clear()
        self._last, self._last_listing = (), None
