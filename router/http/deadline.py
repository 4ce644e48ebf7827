"""A timer that is moved far more often than it fires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NEVER = float("inf")
LATE_SECONDS = 0.05  # a timer that goes off so late says that this process was held up, not that the peer was


class Deadline:
    """Calls ``expired`` once the loop's clock passes the time set last. Moving it later is one assignment.

    The event loop's own timer may go off too early then; it looks at the time that counts and sleeps on. When it goes
    off late, the peer's answer may lie unread in the socket: it is read first, once.
    """

    __slots__ = ("_armed", "_at", "_excused", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at = NEVER
        self._armed = NEVER
        self._excused = NEVER  # the time set for which lateness was made good
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Expire at ``at`` on the loop's clock; ``NEVER`` takes it back."""
        self._at = at
        if at < self._armed:
            self._arm(at)

    def close(self) -> None:
        """Never expire, and let go of the loop's timer."""
        self._at = self._armed = NEVER
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = at
        self._handle = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        now = self._loop.time()
        late = now - self._armed
        self._handle, self._armed = None, NEVER
        if self._at > now:
            if self._at < NEVER:
                self._arm(self._at)
        elif late > LATE_SECONDS and self._excused != self._at:
            self._excused = self._at
            self._arm(now + LATE_SECONDS)
        else:
            self._at = NEVER
            self._expired()
