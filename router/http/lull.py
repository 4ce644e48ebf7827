"""Streams whose pieces come very fast are read in gulps.

A read and a write for each piece are nearly all that relaying one costs. Where many small pieces come within a
millisecond of each other, one after the other, their connection is left alone for four, and what came meanwhile goes on
in one write. Slower streams, as a model's tokens are, go on at once, and so do large pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

QUICK_SECONDS = 0.0015  # uvloop's clock counts whole milliseconds: this one, or the one before
IN_A_ROW = 8  # a stream's first tokens are not kept, nor is what a backend says in a few pieces
SMALL = 4096  # bytes: what comes in larger reads is cheap already
REST_SECONDS = 0.004


class Lull:
    """Connections that rest, woken together: one timer for all."""

    __slots__ = ("_loop", "_resting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._resting: list[Callable[[], None]] = []

    def rest(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` soon."""
        if not self._resting:
            self._loop.call_later(REST_SECONDS, self._over)
        self._resting.append(wake)

    def _over(self) -> None:
        woken, self._resting = self._resting, []
        for wake in woken:
            wake()


class Pace:
    """How fast the pieces of one answer come."""

    __slots__ = ("_last", "_quick")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Nothing has come yet."""
        self._last = 0.0
        self._quick = 0

    def hurries(self, size: int, now: float) -> bool:
        """A piece of ``size`` bytes came at ``now``: is a rest worth it?"""
        if now - self._last > QUICK_SECONDS or size > SMALL:
            self._quick = 0
        else:
            self._quick += 1
        self._last = now
        return self._quick >= IN_A_ROW

    def rested(self, now: float) -> None:
        """Reading goes on: what waits since the rest began does not make the stream slow."""
        self._last = now
