"""A rate limit as a bucket that fills with time. Time is an argument, in seconds on any monotonic clock."""

from __future__ import annotations


class Bucket:
    """Fills with ``rate`` a second and holds one second's worth, at least 1.

    A cost beyond what it can hold is paid from a full bucket and leaves a debt: no request is too large for ever.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._size = max(rate, 1.0)
        self._level = self._size
        self._at = now

    def wait(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` may be taken; 0: now. No side effect."""
        return max(0.0, (min(cost, self._size) - self.level(now)) / self._rate)

    def take(self, cost: float, now: float) -> None:
        """Pay ``cost``, whatever :meth:`wait` says."""
        self._level = self.level(now) - cost
        self._at = now

    def full(self, now: float) -> bool:
        """Nothing is known of it any more: a new bucket would be the same."""
        return self.level(now) >= self._size

    def level(self, now: float) -> float:
        return min(self._size, self._level + self._rate * max(0.0, now - self._at))
