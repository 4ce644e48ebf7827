"""The way back to a client: whole answers and streams, framed as its version of HTTP allows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from router.http.answer import Sink
from router.http.message import Reply, Request, block, bodiless, status_line

LAST_CHUNK = b"0\r\n\r\n"
CLOSE = b"Connection: close\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SMALL = 65536  # bytes that are cheaper to copy behind the head than to write on their own
JSON = (b"Content-Type", b"application/json")


def error_reply(
    status: int, message: str, code: str | None, kind: str = "invalid_request_error", param: str | None = None
) -> Reply:
    """An error in the shape that OpenAI's clients know."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Reply(status, msgspec.json.encode({"error": error}), [JSON])


def malformed(status: int, message: str, code: str) -> Reply:
    """A request that cannot be read; the connection closes behind the answer."""
    reply = error_reply(status, message, code)
    reply.close = True
    return reply


class ResponseWriter(Sink):
    """Writes the answers of one connection, one at a time.

    ``begun``: a head went out; ``done``: the answer is whole; ``paused``: the client reads slower than it is sent to.
    ``lines``: headers that this answer gets whoever gives it.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self.begun = False
        self.done = True
        self.keep_alive = True
        self.lines = b""
        self._gone = False
        self._chunked = False
        self._silent = False  # the answer has no body
        self._left: int | None = None  # bytes of the announced length that are still to come
        self._drained: asyncio.Future[None] | None = None
        self._request: Request | None = None

    def open(self, request: Request) -> None:
        """The next answer is for ``request``."""
        self._request = request
        self.keep_alive = request.keep_alive
        self.begun = self.done = False
        self.lines = b""
        self.on_resume = None

    def invite(self, now: bool) -> None:
        """The client waits for a word before it sends its body."""
        if now:
            self._transport.write(CONTINUE)

    def reply(self, reply: Reply) -> None:
        """A whole answer."""
        request = self._request
        if reply.close:
            self.keep_alive = False
        self.begun = self.done = True
        self._request = None
        head = status_line(reply.status, reply.reason) + block(reply.pairs) + reply.lines + self.lines
        if not self.keep_alive:
            head += CLOSE
        if bodiless("" if request is None else request.method, reply.status):
            known = reply.status in (204, 304) or _has_length(reply.pairs)
            self._write(head + (b"\r\n" if known else b"Content-Length: %d\r\n\r\n" % len(reply.body)))
        elif len(reply.body) <= SMALL:
            self._write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(reply.body), reply.body))
        else:
            self._write(b"%bContent-Length: %d\r\n\r\n" % (head, len(reply.body)))
            self._write(reply.body)

    def last(self, reply: Reply) -> None:
        """An answer to what was no request; the connection closes behind it."""
        self._request = None
        self.keep_alive = False
        self.reply(reply)

    def begin(
        self, status: int, reason: bytes | None, head: bytes, length: int | None, first: bytes, end: bool = False
    ) -> None:
        """The head of an answer (``head``: its header lines) and its ``first`` bytes, in one write.

        ``length``: of the whole body, None when that is not known yet. ``end``: nothing follows.
        """
        request = self._request
        self.begun = True
        old = request is not None and request.version == "1.0"
        silent = self._silent = request is not None and bodiless(request.method, status)
        self._chunked = length is None and not old and not silent
        if length is None and old:
            self.keep_alive = False
        self._left = None if length is None or silent else length - len(first)
        if self._chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
            first = b"%x\r\n%b\r\n" % (len(first), first) if first else b""
            first = first + LAST_CHUNK if end else first
        else:
            framing = b"Content-Length: %d\r\n" % length if length is not None else b""
        closing = b"" if self.keep_alive else CLOSE
        self._write(b"%b%b%b%b\r\n%b" % (status_line(status, reason), head + self.lines, framing, closing, first))
        if end:
            self._end()

    def write(self, data: bytes, end: bool = False) -> None:
        """More of a stream; ``end``: nothing follows."""
        if self._chunked:
            mark = LAST_CHUNK if end else b""
            self._write(b"%x\r\n%b\r\n%b" % (len(data), data, mark) if data else mark)
        elif data:
            if self._left is not None:
                self._left -= len(data)
            self._write(data)
        if end:
            self._end()

    def _end(self) -> None:
        self.done = True
        self._request = None
        if self._left:  # fewer bytes than announced
            self.break_off()

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ``ConnectionError`` when it has left."""
        if self._gone:
            raise ConnectionResetError("the client has left")
        if self.paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def abort(self) -> None:
        """Close without a proper end, so that the client sees that the answer is not whole."""
        self.keep_alive = False
        self._transport.abort()

    def break_off(self) -> None:
        """Send what is written, then close without the mark of an end."""
        self.keep_alive = False
        self._transport.close()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if (resumed := self.on_resume) is not None:
            resumed()

    def lost(self) -> None:
        """The connection is gone."""
        self._gone = True
        self.on_resume = None
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client has left"))
            self._drained.exception()  # its waiter may have been cancelled: then nobody asks

    def _write(self, data: bytes) -> None:
        if data and not self._gone:
            self._transport.write(data)


def _has_length(pairs: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-length" for name, _ in pairs)
