"""How busy the fleet is: what an extra millisecond of work on a worker costs those who come after.

A request that comes while a worker is busy waits for everything ahead of it. Work of ``w`` ms put behind a queue of
``q`` ms keeps the worker busy for about ``(q + w) / (1 - utilisation)`` ms, and each request that arrives there
meanwhile waits ``w`` ms longer. Without this term a fleet computes the same long prefixes on several workers, each time
to the advantage of one request and to the disadvantage of the next three.

Where requests arrive is unequal: a worker that holds a popular prefix gets many short ones. A long prompt goes where it
holds up few of them, so that a queue of long prompts and one of short ones form, as size-interval task assignment does
(Harchol-Balter, Crovella and Murta, "On Choosing a Task Assignment Policy for a Distributed Server System", 1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WINDOW_S = 60.0  # what is older by this much counts 1/e
BUSIEST = 0.8  # utilisation that the traffic is cut at: beyond it the queue grows and no steady state exists
LATER_WEIGHT = 3.0  # measured: a prefix that is computed twice also takes cache room twice
# Measured: how far the next requests arrive where the last ones did; the rest arrives anywhere. With 1.0 the mean
# falls further, but the longest prompts wait for each other (hot spot: p99 1.16 times the oracle's, 1.05 with this).
STAYING = 0.6
HEAVIEST = 1e100  # weight of a request at which all are divided by it


class Traffic:
    """Arrivals and prompt work of the last minute, decayed.

    Of the arrivals at each worker only ratios are asked for: the past loses no weight, but each new one weighs more.
    """

    def __init__(self) -> None:
        self._arrivals = 0.0
        self._tokens = 0.0
        self._seconds = 0.0  # decayed seconds that the sums stand for
        self._at: float | None = None
        self._weight = 1.0  # of an arrival now
        self._sent: dict[str, float] = {}  # weights of each worker's arrivals

    def add(self, worker: str, uncached_tokens: float, now: float) -> None:
        """``worker`` was sent a request that has so many tokens to compute."""
        elapsed = max(0.0, now - self._at) if self._at is not None else 0.0
        kept = math.exp(-elapsed / WINDOW_S)
        self._at = now if self._at is None else max(now, self._at)
        self._arrivals = self._arrivals * kept + 1.0
        self._tokens = self._tokens * kept + uncached_tokens
        self._seconds = self._seconds * kept + WINDOW_S * (1.0 - kept)
        self._weigh(worker, kept)

    def delayed_per_token(self, tokens_per_ms: float) -> float:
        """How many later requests wait for a token's work, for each ms that its worker is busy; the fleet's mean.

        ``tokens_per_ms``: what the fleet computes when all of it is busy. Workers share the traffic by their speed, so
        a fast one delays more of it with each ms, and as much with each token. The second request can be weighed
        already: what is copied to every worker in the first seconds stays there, however long they are.
        """
        if not self._seconds:  # nobody knows yet how fast requests come
            return 0.0
        could = max(self._seconds * 1000.0 * tokens_per_ms, self._tokens / BUSIEST)
        utilisation = self._tokens / could
        return LATER_WEIGHT * self._arrivals / could / (1.0 - utilisation)

    def spread(self, mean: float, workers: Sequence[str]) -> list[float]:
        """A ``mean`` over ``workers`` as the values of each: in proportion to what it was sent, as far as that stays.

        Each counts as if it had got one request more, just now: a worker that had none yet is not one without traffic.
        """
        sent = [self._sent.get(worker, 0.0) for worker in workers]
        each = STAYING * mean * len(sent) / (sum(sent) + len(sent) * self._weight)
        base = (1.0 - STAYING) * mean + each * self._weight
        return [base + each * weight for weight in sent]

    def forget(self, worker: str) -> None:
        """``worker`` is gone."""
        self._sent.pop(worker, None)

    def _weigh(self, worker: str, kept: float) -> None:
        if self._weight > HEAVIEST * kept:
            scale = kept / self._weight
            self._sent = {each: weight * scale for each, weight in self._sent.items()}
            self._weight = 1.0
        else:
            self._weight /= kept
        self._sent[worker] = self._sent.get(worker, 0.0) + self._weight
