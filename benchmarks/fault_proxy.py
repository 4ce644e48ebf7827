"""A proxy in front of a backend that fails on command: one request a connection, one fault at a time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from enum import StrEnum

INFERENCE = (b"POST /v1/", b"POST /generate")
GENERATE_PROBE = b"GET /health_generate"
_RETRY_AFTER = b"Retry-After: 1\r\n"


class Fault(StrEnum):
    """What happens to requests. The first two hit the whole process, the others only inference."""

    REFUSE = "connection refused"
    HANG = "hang of the process"
    STUCK = "hang of the engine, health answers"
    SLOW = "slow first byte"
    RESET = "reset before the first byte"
    CUT = "reset in mid-stream"
    TRUNCATE = "close in mid-stream"
    GARBAGE = "bytes that are not HTTP"
    STATUS_500 = "status 500"
    STATUS_503 = "status 503, Retry-After: 1"
    STATUS_429 = "status 429, Retry-After: 1"


_STATUS = {
    Fault.STATUS_500: b"500 Internal Server Error\r\n",
    Fault.STATUS_503: b"503 Service Unavailable\r\n" + _RETRY_AFTER,
    Fault.STATUS_429: b"429 Too Many Requests\r\n" + _RETRY_AFTER,
}


@dataclass
class FaultProxy:
    """``await start()``, then set the fault with :meth:`become`. ``cut_after``: bytes of an answer that get through."""

    target: int
    cut_after: int = 400
    slow_seconds: float = 2.0
    port: int = 0
    fault: Fault | None = None
    faulted: int = 0  # requests that were hit
    under_way: int = 0  # inference requests whose connection is there
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> FaultProxy:
        await self._listen()
        return self

    async def become(self, fault: Fault | None) -> None:
        """From now on; connections that exist are reset when the process is gone."""
        was, self.fault = self.fault, fault
        if fault is Fault.REFUSE:
            await self._unlisten()
        elif was is Fault.REFUSE:
            await self._listen()

    async def stop(self) -> None:
        await self._unlisten()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        inference = False
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            inference = head.startswith(INFERENCE)
            self.under_way += inference
            length = _length(head)
            body = await reader.readexactly(length) if length else b""
            await self._answer(head, body, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            self.under_way -= inference
            self._writers.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    def _hits(self, head: bytes) -> bool:
        """Does the fault concern this request?"""
        if self.fault is Fault.HANG:
            return True
        return head.startswith(INFERENCE) or (self.fault is Fault.STUCK and head.startswith(GENERATE_PROBE))

    async def _answer(
        self, head: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        fault = self.fault if self._hits(head) else None
        self.faulted += fault is not None
        if fault in (Fault.HANG, Fault.STUCK):
            await reader.read()  # until the other side leaves
        elif fault is Fault.RESET:
            writer.transport.abort()
        elif fault is Fault.GARBAGE:
            writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        elif fault in _STATUS:
            told = b'{"error": {"message": "on purpose"}}'
            writer.write(
                b"HTTP/1.1 %bContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                % (_STATUS[fault], len(told), told)
            )
        else:
            if fault is Fault.SLOW:
                await asyncio.sleep(self.slow_seconds)
            await self._pass(
                head, body, reader, writer, self.cut_after if fault in (Fault.CUT, Fault.TRUNCATE) else None
            )
            if fault is Fault.CUT:
                writer.transport.abort()

    async def _pass(
        self, head: bytes, body: bytes, client: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None
    ) -> None:
        """Forward the request and its answer, up to ``limit`` bytes of its body."""
        line, _, rest = head.partition(b"\r\n")
        upstream, onward = await asyncio.open_connection("127.0.0.1", self.target)
        gone = asyncio.ensure_future(client.read())  # ends when the client leaves
        gone.add_done_callback(lambda _: onward.transport.abort())
        try:
            onward.write(line + b"\r\nConnection: close\r\n" + rest + body)
            answer = await upstream.readuntil(b"\r\n\r\n")
            writer.write(answer)
            sent = 0
            while chunk := await upstream.read(65536):
                if limit is not None and sent + len(chunk) > limit:
                    writer.write(chunk[: limit - sent])
                    await writer.drain()
                    return
                sent += len(chunk)
                writer.write(chunk)
                await writer.drain()
        finally:
            gone.cancel()
            onward.transport.abort()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
