"""A timer that is moved far more often than it fires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NEVER = float("inf")


class Deadline:
    """Calls ``expired`` once the loop's clock passes the time set last. Moving it later is one assignment.

    The event loop's own timer may go off too early then; it looks at the time that counts and sleeps on.
    """

    __slots__ = ("_armed", "_at", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at = NEVER
        self._armed = NEVER
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
        self._handle, self._armed = None, NEVER
        if self._at <= self._loop.time():
            self._at = NEVER
            self._expired()
        elif self._at < NEVER:
            self._arm(self._at)
