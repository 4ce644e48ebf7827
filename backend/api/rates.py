"""How fast a counter grew of late."""

from __future__ import annotations

from collections import deque


class RecentRate:
    """Growth per second of a counter over the last ``seconds``. Times are monotonic seconds; memory is bounded."""

    def __init__(self, seconds: float = 10.0, step: float = 0.1) -> None:
        self._seconds = seconds
        self._step = step
        self._samples: deque[tuple[float, float]] = deque([(float("-inf"), 0.0)])

    def record(self, total: float, now: float) -> None:
        """The counter stands at ``total``."""
        began, _ = self._samples[-1]
        if now - began < self._step:
            self._samples[-1] = (began, total)
        else:
            self._samples.append((now, total))
            self._forget(now)

    def value(self, now: float) -> float:
        self._forget(now)
        return (self._samples[-1][1] - self._samples[0][1]) / self._seconds

    def _forget(self, now: float) -> None:
        """Keep as the first sample the last one that is older than the window."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._seconds:
            self._samples.popleft()
