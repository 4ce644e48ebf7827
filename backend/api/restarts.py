"""How often a scheduler that dies is started again."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 600.0


class RestartBudget:
    """At most ``most`` restarts within the window: one that dies again and again is left to whoever runs the server."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Whether there may be one more restart, at ``now`` (monotonic seconds); counts it if so."""
        while self._times and self._times[0] <= now - WINDOW_SECONDS:
            self._times.popleft()
        if len(self._times) >= self._most:
            return False
        self._times.append(now)
        return True
