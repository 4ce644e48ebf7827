"""The answers to one client call, as the call's handler waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from backend.frontend.errors import RequestError
from backend.frontend.request import RequestState

Sink = Callable[[list[RequestState]], bool]  # takes requests that moved, or declines


class Generation:
    """Iterate for the requests that moved; leaving the context aborts the rest.

    Waking a task for each token costs more than most of what it then does. So a handler may leave a ``sink`` behind
    that takes what moves while it waits: it is called at once, and the handler sleeps on. Whatever ends, fails or is
    declined wakes the handler as ever, in the same order.
    """

    __slots__ = ("_ended", "_error", "_moved", "_release", "_sink", "_waiting", "_wake", "states")

    def __init__(self, states: list[RequestState], release: Callable[[Generation], None]) -> None:
        self.states = states
        self._release = release
        self._moved: dict[int, RequestState] = {}
        self._ended = False  # whether one of them ended
        self._wake = asyncio.Event()
        self._waiting = False  # for the next to move
        self._sink: Sink | None = None
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sink = None
        self._release(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[RequestState]:
        """The requests that moved since the last call, at least one; their text and ids only grow."""
        if not self._moved and self._error is None:
            if all(state.finish for state in self.states):
                raise StopAsyncIteration
            self._waiting = True
            await self._wake.wait()
        self._wake.clear()
        if self._error is not None:
            raise self._error
        moved = list(self._moved.values())
        self._moved.clear()
        self._ended = False
        for state in moved:
            if state.finish is not None and state.finish.status_code is not None:
                raise RequestError(state.finish.message, state.finish.status_code)
        return moved

    async def finished(self) -> list[RequestState]:
        """Wait until every answer is complete."""
        self.pass_on(lambda _: True)
        async for _ in self:
            pass
        return self.states

    def pass_on(self, sink: Sink) -> None:
        """From now on ``sink`` is offered what moves while the handler waits, as long as none of it ended."""
        self._sink = sink

    def offer(self, state: RequestState) -> bool:
        """The request moved: whether the sink took that at once. Only where no other one's can come with it."""
        if not self._waiting or self._sink is None or state.finish is not None or len(self.states) > 1:
            return False
        return self._give(self.states)

    def notify(self, state: RequestState) -> bool:
        """The request moved; :meth:`deliver` follows. Whether it is the first one that the handler has not seen."""
        first = not self._moved
        self._moved[state.uid] = state
        if state.finish is not None:
            self._ended = True
        return first

    def deliver(self) -> None:
        """Pass on what moved, or wake the handler."""
        if self._waiting and not self._ended and self._give(list(self._moved.values())):
            self._moved.clear()
            return
        self._waiting = False
        self._wake.set()

    def _give(self, moved: list[RequestState]) -> bool:
        """Whether the sink took what moved, or failed: then the handler knows."""
        if self._sink is None:
            return False
        try:
            return self._sink(moved)
        except Exception as error:  # it is the handler's, and no other call's
            self.fail(error)
            return True

    def fail(self, error: Exception) -> None:
        """The call ends with ``error``."""
        self._error = error
        self._waiting = False
        self._wake.set()
