"""How busy the fleet is: what an extra millisecond of work on a worker costs those who come after.

A request that comes while a worker is busy waits for everything ahead of it. Work of ``w`` ms put behind a queue of
``q`` ms keeps the worker busy for about ``(q + w) / (1 - utilisation)`` ms, and each request that arrives meanwhile
waits ``w`` ms longer. Without this term a fleet computes the same long prefixes on several workers, each time to the
advantage of one request and to the disadvantage of the next three.
"""

from __future__ import annotations

import math

WINDOW_S = 60.0  # what is older by this much counts 1/e
BUSIEST = 0.8  # utilisation that the estimate is cut at: beyond it the queue grows and no steady state exists
LATER_WEIGHT = 2.0  # measured: a prefix that is computed twice also takes cache room twice


class Traffic:
    """Arrivals and work of the last minute, decayed."""

    def __init__(self) -> None:
        self._arrivals = 0.0
        self._work_ms = 0.0
        self._since = 0.0  # decayed seconds that the sums stand for
        self._at: float | None = None

    def add(self, work_ms: float, now: float) -> None:
        """A request was sent that needs ``work_ms`` of some worker."""
        elapsed = max(0.0, now - self._at) if self._at is not None else 0.0
        kept = math.exp(-elapsed / WINDOW_S)
        self._at = now if self._at is None else max(now, self._at)
        self._arrivals = self._arrivals * kept + 1.0
        self._work_ms = self._work_ms * kept + work_ms
        self._since = self._since * kept + WINDOW_S * (1.0 - kept)

    def delayed_per_ms(self, workers: int) -> float:
        """How many later requests wait for one ms that a worker is busy, if ``workers`` share the traffic evenly."""
        if self._since < 1.0:
            return 0.0
        per_worker = self._arrivals / self._since / workers / 1000.0
        utilisation = min(self._work_ms / self._since / workers / 1000.0, BUSIEST)
        return LATER_WEIGHT * per_worker / (1.0 - utilisation)
