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
LATER_WEIGHT = 3.0  # measured: a prefix that is computed twice also takes cache room twice


class Traffic:
    """Arrivals and prompt work of the last minute, decayed."""

    def __init__(self) -> None:
        self._arrivals = 0.0
        self._tokens = 0.0
        self._seconds = 0.0  # decayed seconds that the sums stand for
        self._at: float | None = None

    def add(self, uncached_tokens: float, now: float) -> None:
        """A request was sent that has so many tokens to compute."""
        elapsed = max(0.0, now - self._at) if self._at is not None else 0.0
        kept = math.exp(-elapsed / WINDOW_S)
        self._at = now if self._at is None else max(now, self._at)
        self._arrivals = self._arrivals * kept + 1.0
        self._tokens = self._tokens * kept + uncached_tokens
        self._seconds = self._seconds * kept + WINDOW_S * (1.0 - kept)

    def delayed_per_token(self, tokens_per_ms: float) -> float:
        """How many later requests wait for a token's work, for each ms that its worker is busy.

        ``tokens_per_ms``: what the fleet computes when all of it is busy. Workers share the traffic by their speed, so
        a fast one delays more of it with each ms, and as much with each token.
        """
        if self._seconds < 1.0:
            return 0.0
        arrivals_per_ms = self._arrivals / self._seconds / 1000.0
        utilisation = min(self._tokens / self._seconds / 1000.0 / tokens_per_ms, BUSIEST)
        return LATER_WEIGHT * arrivals_per_ms / tokens_per_ms / (1.0 - utilisation)
