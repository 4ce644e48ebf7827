"""Requests that wait for room, each with a deadline; whoever frees room lets the next ones go at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from router.fair_queue import FairQueue


class LineFull(Exception):
    """There is no place left in the line."""


class WaitedTooLong(Exception):
    """The deadline passed before there was room."""


@dataclass(slots=True, eq=False)
class _Waiter:
    take: Callable[[], bool]
    future: asyncio.Future[None]


class WaitingLine:
    """A line of waiters. ``take`` of a waiter books what it waits for, or says that there is no room.

    ``take`` is called without a pause between asking and booking, so that limits are never exceeded.
    """

    def __init__(self, size: int) -> None:
        self._queue: FairQueue[_Waiter] = FairQueue(size)

    def __len__(self) -> int:
        return len(self._queue)

    def takes(self, key: str) -> bool:
        """Is there a place in the line for ``key``?"""
        return self._queue.takes(key)

    async def until(self, key: str, take: Callable[[], bool], give_back: Callable[[], None], seconds: float) -> None:
        """Return once ``take`` succeeded. Raises :class:`LineFull` and :class:`WaitedTooLong`.

        Whoever is cancelled holds nothing: what was taken meanwhile is given back.
        """
        if take():
            return
        loop = asyncio.get_running_loop()
        waiter = _Waiter(take, loop.create_future())
        taken, displaced = self._queue.push(key, waiter)
        if displaced is not None:
            _fail(displaced.future, LineFull())
        if not taken:
            raise LineFull
        timer = loop.call_later(max(0.0, seconds), _fail, waiter.future, WaitedTooLong())
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                give_back()
            raise
        finally:
            timer.cancel()
            self._queue.remove(key, waiter)

    def move(self) -> None:
        """Something became free: let everybody go who now finds room."""
        while (waiter := self._queue.pop(_go)) is not None:
            waiter.future.set_result(None)


def _go(waiter: _Waiter) -> bool:
    return not waiter.future.done() and waiter.take()


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
