"""How many retries the whole router may send: a share of its traffic, so that a broken fleet is not buried in repeats.

Time is an argument, in seconds on any monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 10  # seconds
SHARE = 0.1  # of the requests of the window
FLOOR = 10 * WINDOW  # retries that are always allowed in the window


@dataclass(slots=True)
class _Second:
    number: int = -WINDOW
    requests: int = 0
    retries: int = 0


class RetryBudget:
    """Counts in whole seconds, a window of ten.

    A worker that fails takes everything in flight on it down at once. Those requests may all be repeated: each worker
    that failed within the window adds what it had in flight when its failures began.
    """

    def __init__(self) -> None:
        self._seconds = [_Second() for _ in range(WINDOW)]
        self._fallen: dict[str, tuple[float, int]] = {}  # worker: (when its failures began, in flight then)

    def request(self, now: float) -> None:
        """A client's request arrived."""
        self._second(now).requests += 1

    def failed(self, worker: str, in_flight: int, now: float) -> None:
        """A request failed on ``worker``, which had ``in_flight`` requests, this one included."""
        began, _ = self._fallen.get(worker, (float("-inf"), 0))
        if now - began >= WINDOW:
            self._fallen[worker] = (now, in_flight)

    def take(self, now: float) -> bool:
        """Spend one retry. False when there is none left."""
        if self.used(now) >= self.allowed(now):
            return False
        self._second(now).retries += 1
        return True

    def used(self, now: float) -> int:
        """Retries spent in the window."""
        return sum(second.retries for second in self._live(now))

    def allowed(self, now: float) -> int:
        """Retries that the window may hold."""
        share = int(SHARE * sum(second.requests for second in self._live(now)))
        for worker in [worker for worker, (began, _) in self._fallen.items() if now - began >= WINDOW]:
            del self._fallen[worker]
        return max(share, FLOOR) + sum(in_flight for _, in_flight in self._fallen.values())

    def _live(self, now: float) -> list[_Second]:
        oldest = int(now) - WINDOW + 1
        return [second for second in self._seconds if second.number >= oldest]

    def _second(self, now: float) -> _Second:
        number = int(now)
        second = self._seconds[number % WINDOW]
        if second.number != number:
            second.number, second.requests, second.retries = number, 0, 0
        return second
