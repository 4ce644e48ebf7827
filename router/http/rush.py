"""Requests that come at once are begun a few at a time.

What comes in during a turn of the event loop is read in the next one. Were a hundred requests begun in one turn, the
first answer would not be read before the last request was placed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

AT_ONCE = 8


class Rush:
    """Begins up to ``at_once`` pieces of work, in their order, and the next ones a turn of the event loop later."""

    __slots__ = ("_at_once", "_loop", "_room", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, at_once: int = AT_ONCE) -> None:
        self._loop = loop
        self._at_once = self._room = at_once
        self._waiting: deque[Callable[[], None]] = deque()

    def begin(self, work: Callable[[], None]) -> None:
        """Call ``work`` now or soon. It must not raise."""
        if self._room:
            self._take(work)
        else:
            self._waiting.append(work)

    def _take(self, work: Callable[[], None]) -> None:
        self._room -= 1
        if not self._room:
            self._loop.call_soon(self._go_on)
        work()

    def _go_on(self) -> None:
        self._room = self._at_once
        while self._waiting and self._room:
            self._take(self._waiting.popleft())
