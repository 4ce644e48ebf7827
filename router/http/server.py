"""The server side: reads requests off a client's connection, one after the other, and writes their answers.

A request is handed over when it is whole. What cannot be framed beyond doubt is refused and the connection closed, so
that nothing behind it is ever taken for a request. While a request is being served the connection is still read, so
that a client that leaves is noticed at once; only when it sends far ahead is it left to wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserInvalidMethodError

from router.http.deadline import NEVER, Deadline
from router.http.intake import Intake, Refused
from router.http.message import Reply, Request
from router.http.response import ResponseWriter, malformed
from router.http.rush import Rush

AHEAD_BYTES = 65536  # of further requests that may arrive while one is served
LINGER_SECONDS = 2.0  # for a refused client to stop sending


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send, in bytes and seconds."""

    head_bytes: int = 65536
    body_bytes: int = 64 * 2**20
    head_seconds: float = 30.0  # for a head, from its first byte or the connection's beginning
    body_seconds: float = 60.0  # between two pieces of a body
    idle_seconds: float = 75.0  # between two requests
    write_seconds: float = 300.0  # for a client that does not read what it asked for


class Turn(Protocol):
    """One request's turn on its connection. It begins with ``run`` or ``ride``; neither ends within the call."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """A task answers, and the turn ends with it. Cancelled when the client leaves, though never before it began."""

    def ride(self, cancel: Callable[[], None]) -> None:
        """Callbacks answer, and :meth:`over` ends the turn. ``cancel`` is called when the client leaves."""

    def over(self) -> None:
        """The answer is written."""

    def failed(self, error: Exception) -> None:
        """A defect ended the work."""


class Service(Protocol):
    """What a server does with requests."""

    def look(self, request: Request) -> Reply | None:
        """The head is there, the body not: an answer refuses the request."""

    def serve(self, request: Request, client: ResponseWriter, turn: Turn) -> None:
        """Begin to answer a whole request."""

    def failed(self, request: Request, client: ResponseWriter, error: Exception) -> None:
        """A defect ended the work on ``request``: say so to whom it concerns."""

    def refused(self, reply: Reply) -> None:
        """``reply`` went to a client whose request could not be read."""


class ServerConnection(asyncio.Protocol):
    """One client's connection. ``rush``: shared by those that requests may come on at once."""

    def __init__(
        self, service: Service, limits: Limits, connections: set[ServerConnection], rush: Rush | None = None
    ) -> None:
        self._service = service
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._rush = rush or Rush(self._loop)
        self._timer = Deadline(self._loop, self._expired)
        self._waiting: deque[Request] = deque()
        self._ahead = 0
        self._request: Request | None = None  # being served
        self._cancel: Callable[[], object] | None = None  # ends the work on it
        self._task: asyncio.Task[None] | None = None  # when a task does that
        self._last_word: Reply | None = None  # after the requests before it; then the connection closes
        self._deaf = False
        self._resting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own have another base class
        self._connections.add(self)
        self.writer = ResponseWriter(self._transport)
        peer = transport.get_extra_info("peername")
        self._intake = Intake(
            self._limits.head_bytes,
            self._limits.body_bytes,
            self._head,
            self._whole,
            remote=str(peer[0]) if isinstance(peer, tuple) else "",
            scheme="https" if transport.get_extra_info("sslcontext") else "http",
        )
        self._timer.set(self._loop.time() + self._limits.head_seconds)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._timer.close()
        self._deaf = True
        self._waiting.clear()
        self.writer.lost()
        self._give_up()

    def pause_writing(self) -> None:
        self.writer.pause()
        self._timer.set(self._loop.time() + self._limits.write_seconds)

    def resume_writing(self) -> None:
        self.writer.resume()
        if self._request is not None:
            self._timer.set(NEVER)
        elif not self._deaf:
            self._watch()

    def eof_received(self) -> bool:
        """A client that closes has left, also when it would still listen: the two look the same."""
        return False

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._request is not None:
            self._ahead += len(data)
            if self._ahead > AHEAD_BYTES:
                self._resting = True
                self._transport.pause_reading()
        try:
            self._intake.feed(data)
        except Refused as refused:
            self._refuse(refused.reply)
        except HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Refused):
                raise
            self._refuse(cause.reply)
        except HttpParserInvalidMethodError:
            self._refuse(malformed(501, "The method is unknown.", "method_unknown"))
        except HttpParserError as error:
            self._refuse(malformed(400, f"The request is malformed: {error}", "malformed_request"))
        if self._request is None and not self._deaf:
            self._watch()

    def close(self) -> asyncio.Task[None] | None:
        """The server stops: cut what is under way. The task that still has to notice."""
        self._transport.close()
        self._give_up()
        return self._task

    def _give_up(self) -> None:
        """Nobody waits for the answer any more."""
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    def _watch(self) -> None:
        """Nothing is being served: the client has to go on with what it has begun."""
        limits, intake = self._limits, self._intake
        now = self._loop.time()
        if intake.in_body:
            self._timer.set(now + limits.body_seconds)
        elif intake.in_head:
            self._timer.set(min(intake.begun or now, now) + limits.head_seconds)
            intake.begun = intake.begun or now
        else:
            self._timer.set(now + limits.idle_seconds)

    def _expired(self) -> None:
        if self._request is not None or self._deaf:  # the client does not read, or does not stop sending
            self._transport.abort()
        elif self._intake.in_head or self._intake.in_body:
            self._refuse(malformed(408, "The request did not arrive in time.", "request_timeout"))
        else:
            self._transport.abort()

    def _head(self, request: Request) -> None:
        """A head is there. May raise Refused."""
        if (reply := self._service.look(request)) is not None:
            raise Refused(reply)
        if request.headers.get("expect", "").lower() == "100-continue" and request.version != "1.0":
            self.writer.invite(self._request is None and not self._waiting)

    def _whole(self, request: Request) -> None:
        if self._request is None:
            self._begin(request)
        else:
            self._waiting.append(request)

    def _begin(self, request: Request) -> None:
        self._request = request
        self._timer.set(NEVER)
        self._ahead = 0
        self.writer.open(request)
        self._rush.begin(self._serve)

    def _serve(self) -> None:
        request = self._request
        if request is None or self._transport.is_closing():  # the client left before its request was begun
            return
        try:
            self._service.serve(request, self.writer, self)
        except Exception as error:
            self.run(self._raise(error))

    # The turn of the request that is being served.

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._task = self._loop.create_task(self._work(work))
        # Not at once: a task that is cancelled before its first step never takes it, and could not clean up.
        self._cancel = lambda: self._loop.call_soon(task.cancel)

    def ride(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def failed(self, error: Exception) -> None:
        self._blamed(error)
        self.over()

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._blamed(error)
        finally:
            self.over()

    def _blamed(self, error: Exception) -> None:
        if self._request is not None:
            self._service.failed(self._request, self.writer, error)

    async def _raise(self, error: Exception) -> None:
        raise error

    def over(self) -> None:
        self._request = self._cancel = self._task = None
        if self._transport.is_closing():
            return
        if not self.writer.done:
            self._transport.abort()
        elif not self.writer.keep_alive:
            self._deaf = True
            self._transport.close()
        elif self._waiting:
            self._begin(self._waiting.popleft())
        elif self._last_word is not None:
            self._say(self._last_word)
        else:
            if self._resting:
                self._resting = False
                self._transport.resume_reading()
            self._watch()

    def _refuse(self, reply: Reply) -> None:
        self._deaf = True
        self._last_word = reply
        if self._request is None:
            self._say(reply)

    def _say(self, reply: Reply) -> None:
        """The connection's last answer. What the client still sends is thrown away for a moment: to close on it would
        reset the connection, and the client might never see the answer.
        """
        self._service.refused(reply)
        self.writer.last(reply)
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._timer.set(self._loop.time() + LINGER_SECONDS)
        else:
            self._transport.close()
