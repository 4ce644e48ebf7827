"""One connection to a backend: sends a request, feeds the answer, and goes back to the pool when both are whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpResponseParser

from router.http.answer import Answer, Fault
from router.http.deadline import NEVER, Deadline
from router.http.lull import Lull, Pace
from router.http.message import bodiless, without_length
from router.http.repeated import Repeated

SMALL = 4096  # bytes of a body that are cheaper to copy behind the head than to write on their own
MAX_HEAD = 65536


class ClientConnection(asyncio.Protocol):
    """Serves one answer at a time. ``on_free`` is told when it can serve another one, ``on_lost`` when never again."""

    def __init__(
        self,
        on_free: Callable[[ClientConnection], None],
        on_lost: Callable[[ClientConnection], None],
        idle: float,
        lull: Lull,
    ) -> None:
        """``lull``: shared by those that may rest together."""
        self._on_free = on_free
        self._on_lost = on_lost
        self._lull = lull
        self._pace = Pace()
        self._resting: Answer | None = None  # is not read for a moment
        self._idle_limit = idle  # seconds between two pieces of an answer
        self._loop = asyncio.get_running_loop()
        self._timer = Deadline(self._loop, self._expired)
        self._total = NEVER
        self._answer: Answer | None = None
        self._method = ""
        self._reused = False
        self._resting_since = 0.0
        self._head_bytes = 0
        self._began = False  # the first byte of the answer's body is there
        self._last: tuple[Repeated, Answer] | None = None  # the head of an answer that came in one piece
        self._fresh_parser()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own have another base class

    def start(self, method: str, head: bytes, body: bytes, first_byte_by: float, total: float) -> Answer:
        """Send a request; times are on the loop's clock."""
        answer = self._answer = Answer(self, self._loop)
        self._method = method
        self._total = total
        self._head_bytes = 0
        self._began = False
        self._pace.begin()
        self._timer.set(min(first_byte_by, total))
        if self._transport.is_closing():
            answer.fail(Fault("stale" if self._reused else "reset", "the backend closed the connection"))
        elif len(body) <= SMALL:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    def rest(self, seconds: float) -> None:
        """Nobody uses the connection: close it if that stays so for ``seconds``."""
        self._reused = True
        self._resting_since = self._loop.time()
        self._timer.set(self._resting_since + seconds)

    @property
    def rested_seconds(self) -> float:
        """Since :meth:`rest`."""
        return self._loop.time() - self._resting_since

    def close(self) -> None:
        self._transport.abort()

    # What the answer calls.

    def hold(self) -> None:
        self._timer.set(self._total)
        self._transport.pause_reading()

    def go_on(self) -> None:
        if not self._transport.is_closing():
            self._expect_more(self._loop.time())
            self._transport.resume_reading()

    def drop(self, answer: Answer) -> None:
        """An answer that is not whole leaves bytes on the way that nobody wants: close."""
        if self._answer is answer:
            self._answer = None
            self._transport.abort()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # a word out of turn
            self._transport.abort()
            return
        begins = not answer.status and not self._head_bytes
        if not (begins and self._repeats(answer, data)):
            try:
                self._parser.feed_data(data)
            except HttpParserError as error:
                cause = error.__context__
                self._fail(cause if isinstance(cause, Fault) else Fault("reset", f"no proper answer: {error}"))
                return
            if begins and answer.ended and self._keep and self._method != "HEAD":
                self._remember(answer, data)
        if not answer.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._fail(Fault("reset", "the head of the answer is too large"))
            return
        if answer.ended:  # free before anybody hears of it: the next request may be for this very connection
            self._answer = None
            self._finish()
        elif self._began:
            now = self._loop.time()
            self._expect_more(now)
            answer.arrived()
            if self._pace.hurries(len(data), now) and answer.flows and self._answer is answer:
                self._rest_a_moment(answer)
            return
        answer.arrived()

    def _rest_a_moment(self, answer: Answer) -> None:
        self._resting = answer
        self._transport.pause_reading()
        self._lull.rest(self._wake)

    def _wake(self) -> None:
        resting, self._resting = self._resting, None
        if resting is self._answer and not self._transport.is_closing():
            self._pace.rested(self._loop.time())
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.close()
        self._on_lost(self)
        answer, self._answer = self._answer, None
        if answer is None or answer.ended:
            return
        if error is None and answer.status and self._until_close:
            answer.ended = True
            answer.arrived()
        else:
            stale = self._reused and not answer.status and not self._head_bytes
            answer.fail(Fault("stale" if stale else "reset", str(error or "the backend closed the connection")))

    def _repeats(self, answer: Answer, data: bytes) -> bool:
        """Is ``data`` the whole answer, with the head of an earlier one? Then that is what ``answer`` gets."""
        if self._last is None or self._method == "HEAD":
            return False
        repeated, like = self._last
        body = repeated.body(data)
        if body is None:
            return False
        answer.status, answer.reason, answer.memo, answer.length = like.status, like.reason, like.memo, len(body)
        answer.pairs = [*like.pairs, (b"Content-Length", b"%d" % len(body))]
        answer.ended = True
        if body:
            answer.add(body)
        return True

    def _remember(self, answer: Answer, data: bytes) -> None:
        """``data`` was the whole ``answer``: the next one may come with the same head."""
        repeated = Repeated.of(data, answer.size, answer.size)
        if repeated is not None:
            like = Answer(self, self._loop)
            like.status, like.reason, like.memo = answer.status, answer.reason, answer.memo
            like.pairs = without_length(answer.pairs)
            self._last = repeated, like

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._pairs: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._in_head = True

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        answer, status = self._answer, self._parser.get_status_code()
        if answer is None or answer.status:
            raise Fault("reset", "an answer that nobody asked for")
        if status < 200:
            if status == 101:
                raise Fault("reset", "the backend wants to change protocols")
            return
        length, chunked = None, False
        for name, value in self._pairs:
            lower = name.lower()
            if lower == b"content-length":
                length = int(value)
            elif lower == b"transfer-encoding":
                chunked = True
        answer.status, answer.reason, answer.pairs, answer.length = status, self._reason, self._pairs, length
        self._keep = self._parser.should_keep_alive()
        self._until_close = length is None and not chunked and not bodiless(self._method, status)
        if self._method == "HEAD":  # the parser waits for a body that never comes
            answer.ended = True

    def on_body(self, data: bytes) -> None:
        if self._answer is not None and not self._answer.ended:
            self._began = True
            self._answer.add(data)
        else:
            raise Fault("reset", "bytes behind the end of an answer")

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._answer.ended = True

    def _finish(self) -> None:
        if not self._keep or self._transport.is_closing():
            self._transport.close()
            return
        if self._method == "HEAD":
            self._fresh_parser()
        self._on_free(self)

    def _fresh_parser(self) -> None:
        self._parser = HttpResponseParser(self)
        self._keep = self._until_close = self._in_head = False

    def _expect_more(self, now: float) -> None:
        at = now + self._idle_limit  # for every piece of every stream: no call for the lesser one
        self._timer.set(at if at < self._total else self._total)

    def _expired(self) -> None:
        self._fail(Fault("timeout", "no answer in time"))

    def _fail(self, error: Fault) -> None:
        answer, self._answer = self._answer, None
        self._transport.abort()
        if answer is not None:
            answer.fail(error)
