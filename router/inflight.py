"""Requests under way, and the end of taking new ones."""

from __future__ import annotations

import asyncio


class Inflight:
    """Counts requests. ``ready`` turns false when shutdown begins, ``refusing`` when new requests are turned away.

    ``starting``: backends of the router's own have not all been well yet.
    """

    def __init__(self) -> None:
        self.count = 0
        self.starting = False
        self.ready = True
        self.refusing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """A request is under way."""
        if not self.count:
            self._idle.clear()
        self.count += 1

    def leave(self) -> None:
        """It is over. Once for each :meth:`enter`."""
        self.count -= 1
        if not self.count:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until no request is under way."""
        await self._idle.wait()
