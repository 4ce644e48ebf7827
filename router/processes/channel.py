"""One end of the line between the owner and a data process: framed messages, and HTTP requests that get an answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from router.errors import Refusal, unavailable
from router.http.message import Reply, Request
from router.processes.messages import ANY, Message, Question, Said

log = logging.getLogger(__name__)

Answerer = Callable[[Request], Awaitable[Reply]]

_HEAD = 5  # bytes: a length of four, and the kind of frame
_MESSAGE, _PLACEMENTS = 0, 1
HINTS_BYTES = 8 * 2**20  # unsent on the line beyond which placements are dropped: they are of use, not needed
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(ANY)


class Channel(asyncio.Protocol):
    """``told`` gets each message, ``placed`` each batch of placements as it came, ``answer`` the requests; ``ended``
    is called when the other side is gone.
    """

    def __init__(
        self,
        told: Callable[[Message], None],
        placed: Callable[[bytes], None],
        answer: Answerer,
        ended: Callable[[], None],
    ) -> None:
        self._told = told
        self._placed = placed
        self._answer = answer
        self._ended = ended
        self._buffer = bytearray()
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Future[Reply]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None

    async def connect(self, line: socket.socket) -> None:
        """Speak over ``line``, which belongs to the channel from now on."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=line)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_exception(_gone())
        for task in self._tasks:
            task.cancel()
        self._ended()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _HEAD:
            end = start + _HEAD + int.from_bytes(buffer[start : start + 4], "little")
            if len(buffer) < end:
                break
            self._frame(buffer[start + 4], bytes(buffer[start + _HEAD : end]))
            start = end
        del buffer[:start]

    def send(self, message: Message) -> None:
        """Nothing happens when the other side is gone: :meth:`connection_lost` says so."""
        self._write(_MESSAGE, _ENCODER.encode(message))

    def send_placements(self, batch: bytes) -> None:
        """Dropped when the other side does not keep up."""
        if self._transport is not None and self._transport.get_write_buffer_size() < HINTS_BYTES:
            self._write(_PLACEMENTS, batch)

    async def ask(self, request: Request) -> Reply:
        """The other side's answer. Raises :class:`Refusal` (503) when it is gone."""
        if self._transport is None:
            raise _gone()
        number = next(self._numbers)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            self.send(Question.of(number, request))
            return await answer
        finally:
            del self._open[number]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _write(self, kind: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(len(payload).to_bytes(4, "little") + bytes((kind,)) + payload)

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == _PLACEMENTS:
            self._placed(payload)
            return
        message: Any = _DECODER.decode(payload)
        if isinstance(message, Said):
            waiting = self._open.get(message.number)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.reply())
        elif isinstance(message, Question):
            task = asyncio.get_running_loop().create_task(self._reply(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._told(message)

    async def _reply(self, question: Question) -> None:
        try:
            reply = await self._answer(question.request())
        except Refusal as refusal:
            reply = refusal.reply()
        except Exception:
            log.exception("a defect of the router ended a request to %s", question.target)
            reply = Refusal(500, "The router failed.", kind="internal_error", code="internal_error").reply()
        self.send(Said.of(question.number, reply))


def _gone() -> Refusal:
    return unavailable("The router's control process is away.", code="control_unavailable")
