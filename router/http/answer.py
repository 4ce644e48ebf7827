"""A backend's answer as it arrives: its head, then bytes that are either read one by one or sent straight on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from router.http.message import Pairs, fields

BUFFERED_BYTES = 65536  # of an answer that nobody reads, before its backend is made to wait


class Fault(Exception):
    """An exchange failed. ``kind``: connect, stale, reset, timeout or silent."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class Sink:
    """Where an answer is sent straight on to. ``paused``: it takes no more for now and calls ``on_resume`` later.

    A base, not a protocol: each piece of each stream passes, and what is compiled finds a base's methods faster.
    """

    def __init__(self) -> None:
        self.paused = False
        self.on_resume: Callable[[], None] | None = None

    def write(self, data: bytes, end: bool = False) -> None:
        """More of the answer; ``end``: nothing follows."""
        raise NotImplementedError


class Flow(Protocol):
    """What an answer needs of its connection."""

    def hold(self) -> None:
        """Read no more for now."""

    def go_on(self) -> None:
        """Read again."""

    def drop(self, answer: Answer) -> None:
        """``answer`` is not wanted any more."""


class Answer:
    """One answer. Close it always: an unfinished one cancels the work at the backend."""

    __slots__ = (
        "_chunks", "_error", "_flow", "_headers", "_held", "_loop", "_seen", "_sink", "_waiter", "ended",
        "first", "length", "memo", "on_news", "pairs", "reason", "size", "status",
    )  # fmt: skip

    def __init__(self, flow: Flow, loop: asyncio.AbstractEventLoop) -> None:
        self._flow = flow
        self._loop = loop
        self.status = 0
        self.reason = b""
        self.pairs: Pairs = []
        self.memo: dict[str, bytes] = {}  # what was worked out from the head, and holds whatever its length
        self.length: int | None = None  # announced length of the body
        self.first = b""  # set by peek()
        self.ended = False  # the last byte has arrived
        self._headers: dict[str, str] | None = None
        self._chunks: list[bytes] = []
        self.size = 0  # bytes of the body that wait to be taken
        self._error: Fault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._seen: Callable[[bytes], None] | None = None
        self._held = False
        self.on_news: Callable[[], None] | None = None  # called instead of waking whoever awaits

    @property
    def failed(self) -> bool:
        """It will not end properly."""
        return self._error is not None

    @property
    def flows(self) -> bool:
        """Each piece goes on to a sink as it comes."""
        return self._sink is not None and not self._held

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        if self._headers is None:
            self._headers = fields(self.pairs)
        return self._headers

    @property
    def complete(self) -> bool:
        """Nothing follows what was read."""
        return self.ended and not self._chunks

    async def head(self) -> None:
        """Wait for the head. Raises :class:`Fault`."""
        while not self.status:
            await self._wait()

    async def peek(self) -> None:
        """Wait for the first bytes of the body; empty when it has none. Raises :class:`Fault`."""
        if self._chunks or self.ended:
            self.first = self.take()
        else:
            self.first = await self.read()

    async def read(self) -> bytes:
        """The next bytes as they came; empty at the end. Raises :class:`Fault` when the answer is cut or stalls."""
        while not self._chunks and not self.ended:
            await self._wait()
        return self.take()

    async def send_on(self, sink: Sink, seen: Callable[[bytes], None]) -> None:
        """Hand all that follows to ``sink`` as it comes, until the end. ``seen`` gets a look at each piece."""
        try:
            self.pour(sink, seen)
            while not self.ended:
                await self._wait()
        finally:
            sink.on_resume = None

    def pour(self, sink: Sink, seen: Callable[[bytes], None]) -> None:
        """The same from now on, without waiting for the end, which is news as is a failure."""
        self._sink, self._seen = sink, seen
        sink.on_resume = self._resume
        if self._chunks or self.ended:
            self.arrived()

    def close(self) -> None:
        if self._sink is not None:
            self._sink.on_resume = None
        self._sink = self._waiter = self.on_news = None
        self._flow.drop(self)

    # What the connection calls.

    def add(self, data: bytes) -> None:
        self._chunks.append(data)
        self.size += len(data)

    def arrived(self) -> None:
        """A read of the socket is over: wake whoever waits, or send on."""
        if self._sink is None:
            if self.size > BUFFERED_BYTES and not self.ended:
                self._hold()
            self._wake()
            return
        data = self.take()
        if data and self._seen is not None:
            self._seen(data)
        if data or self.ended:
            self._sink.write(data, self.ended)
        if self.ended:
            self._wake()
        elif self._sink.paused:
            self._hold()

    def fail(self, error: Fault) -> None:
        self._error = error
        self._wake()

    def give_up(self) -> None:
        """The backend was found to be silent."""
        self.fail(Fault("silent", "it did not answer its probes either"))

    def take(self) -> bytes:
        """What has arrived of the body, not to be given out again."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.size = 0
        if self._held and self._sink is None:
            self._resume()
        return data

    def _hold(self) -> None:
        self._held = True
        self._flow.hold()

    def _resume(self) -> None:
        if self._held:
            self._held = False
            self._flow.go_on()

    def _wake(self) -> None:
        if self.on_news is not None:
            self.on_news()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        # Into a name: mypyc takes an attribute that was None before the wait to be None behind it.
        if (error := self._error) is not None:
            raise error
        self._waiter = self._loop.create_future()
        await self._waiter
        if (error := self._error) is not None and not self._chunks and not self.ended:
            raise error
