"""The frontend's end of the two sockets: what happens in one tick of the loop leaves as one message.

Of a crowd that comes in one tick the first few leave at once, so that the scheduler begins while the others are read.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import zmq
import zmq.asyncio

from backend.messages import FromScheduler, NewRequest, ProfileCommand, SchedulerReady, ToScheduler

logger = logging.getLogger(__name__)

MOST_HELD = 8  # new requests that wait for the tick's end


class SchedulerClient:
    """Owns both sockets (it binds, the scheduler connects). To be used inside one event loop, closed once."""

    def __init__(self, to_scheduler: str, from_scheduler: str) -> None:
        self._context = zmq.asyncio.Context()
        self._push: zmq.Socket[bytes] = zmq.Context.shadow(self._context).socket(zmq.PUSH)
        self._push.set_hwm(0)
        self._push.bind(to_scheduler)
        self._pull = self._context.socket(zmq.PULL)
        self._pull.set_hwm(0)
        self._pull.bind(from_scheduler)
        self._encoder = msgspec.msgpack.Encoder()
        self._pending = ToScheduler()
        self._new: list[msgspec.Raw] = []  # requests of the pending message, encoded already
        self._soon: asyncio.Handle | None = None  # at the end of this tick
        self._tickets = itertools.count(1)
        self._flushes: dict[int, asyncio.Future[bool]] = {}
        self._pauses: list[tuple[bool, asyncio.Future[None]]] = []  # who waits for it to stand still, or go on
        self._profiles: deque[asyncio.Future[tuple[bool, str]]] = deque()  # in the order of their commands

    async def ready(self) -> SchedulerReady:
        """Wait for the scheduler's first word."""
        return msgspec.msgpack.decode(await self._pull.recv(), type=SchedulerReady)

    async def run(self, handle: Callable[[FromScheduler], None]) -> None:
        """Hand each message to ``handle`` until cancelled."""
        decoder = msgspec.msgpack.Decoder(FromScheduler)
        while True:
            message = decoder.decode(await self._pull.recv())
            if message.flushed is not None:
                ticket, done = message.flushed
                waiter = self._flushes.pop(ticket, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(done)
            for answer in message.profiled:
                asked = self._profiles.popleft()
                if not asked.done():
                    asked.set_result(answer)
            if self._pauses:
                self._tell_paused(message.stats.paused)
            handle(message)

    def submit(self, requests: Sequence[NewRequest]) -> None:
        """Start all of ``requests``. Raises what ``msgspec`` raises when one cannot be encoded; then none is started.

        Each is encoded here and not with the whole message, so that a bad one costs no other its place in it.
        """
        self._new += [msgspec.Raw(self._encoder.encode(request)) for request in requests]
        if len(self._new) >= MOST_HELD:
            self._send()
        else:
            self._send_soon()

    def ping(self) -> None:
        """Have the scheduler say something, even if there is nothing to say."""
        self._send_soon()

    def abort(self, uid: int) -> None:
        self._pending.abort.append(uid)
        self._send_soon()

    async def flush_cache(self) -> bool:
        """Empty the prefix cache; false when requests were running."""
        if self._flushes:  # one message carries one ticket: those who ask meanwhile share the answer
            return await asyncio.shield(next(iter(self._flushes.values())))
        ticket = next(self._tickets)
        waiter = self._flushes[ticket] = asyncio.get_running_loop().create_future()
        self._pending.flush_cache = ticket
        self._send_soon()
        return await asyncio.shield(waiter)

    async def pause(self, mode: str) -> None:
        """Have the scheduler compute nothing more: ``in_place`` or ``retract``. Returns when it stands still."""
        self._pending.pause = mode
        await self._until(paused=True)

    async def resume(self) -> None:
        """Have the scheduler go on; returns when it does."""
        self._pending.resume = True
        await self._until(paused=False)

    async def profile(self, command: ProfileCommand) -> tuple[bool, str]:
        """Begin or end a recording: whether that was done, and what the scheduler says of it.

        Raises what ``msgspec`` raises when the command cannot be encoded; nothing else is lost by that.
        """
        self._encoder.encode(command)
        self._pending.profile = command
        self._send()  # at once: a message carries one command
        waiter = asyncio.get_running_loop().create_future()
        self._profiles.append(waiter)
        return await waiter

    async def _until(self, *, paused: bool) -> None:
        self._send()  # at once: a pause and a resume in one message would have no order
        waiter = asyncio.get_running_loop().create_future()
        self._pauses.append((paused, waiter))
        await waiter

    def _tell_paused(self, paused: bool) -> None:
        for wanted, waiter in self._pauses:
            if wanted == paused and not waiter.done():
                waiter.set_result(None)
        self._pauses = [each for each in self._pauses if not each[1].done()]

    def fail(self, error: Exception) -> None:
        """The scheduler is gone: whoever waits for its answer gets ``error``."""
        pauses = (waiter for _, waiter in self._pauses)
        waiters: list[asyncio.Future[Any]] = [*self._flushes.values(), *pauses, *self._profiles]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._flushes.clear()
        self._pauses.clear()
        self._profiles.clear()

    def shut_down(self) -> None:
        """Ask the scheduler to end."""
        self._pending.shutdown = True
        self._send()

    def close(self) -> None:
        for waiter in self._flushes.values():
            waiter.cancel()
        self._push.close(linger=0)
        self._pull.close(linger=0)
        self._context.term()

    def _send_soon(self) -> None:
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._push.closed:
            return
        message, self._pending = self._pending, ToScheduler()
        message.new, self._new = cast("list[NewRequest]", self._new), []
        try:
            self._push.send(self._encoder.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            # Nobody is connected: the scheduler is gone, and whoever watches its process fails the requests.
            logger.debug("a message to the scheduler was dropped: it is not connected")
