"""The control plane: routes that are the router's own, served by an aiohttp application on the same port."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from httptools import HttpResponseParser

from router.http.message import Pairs, Reply, Request, block

_OWN = frozenset({b"connection", b"content-length", b"transfer-encoding", b"expect", b"keep-alive", b"date"})
_CUT_SECONDS = 0.1


class ControlPlane:
    """Asks an application in this process, as if the client had connected to it."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=_CUT_SECONDS,
            max_line_size=2**17, max_field_size=2**17,
        )  # fmt: skip
        self._plain: dict[str, set[str]] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []

    async def start(self) -> None:
        await self._runner.setup()
        for route in self._runner.app.router.routes():
            info = route.resource.get_info() if route.resource is not None else {}
            if "path" in info:
                self._plain.setdefault(info["path"], set()).add(route.method)
            elif "pattern" in info:
                self._patterns.append((info["pattern"], route.method))

    async def stop(self) -> None:
        await self._runner.cleanup()

    def owns(self, method: str, path: str) -> bool:
        """Is the route the router's own?"""
        if "%" in path:
            path = unquote(path)
        if (methods := self._plain.get(path)) is not None and (method in methods or "*" in methods):
            return True
        return any(known in (method, "*") and pattern.fullmatch(path) for pattern, known in self._patterns)

    async def ask(self, request: Request) -> Reply:
        """The application's answer."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the control plane was not started")
        handler = server()
        line = _Line(request)
        handler.connection_made(line)
        try:
            handler.data_received(_as_sent(request))
            await line.closed
        finally:
            handler.connection_lost(None)
        return line.reply(request.method)


class _Line(asyncio.Transport):
    """A transport that collects what is written to it."""

    def __init__(self, request: Request) -> None:
        peer = (request.remote, 0) if request.remote else None
        super().__init__({"peername": peer, "sslcontext": True if request.scheme == "https" else None})
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._written: list[bytes] = []

    def reply(self, method: str) -> Reply:
        """What was written, as an answer to ``method``."""
        collector = _Collector()
        parser = HttpResponseParser(collector)
        head, mark, body = b"".join(self._written).partition(b"\r\n\r\n")
        parser.feed_data(head + mark)
        if method != "HEAD" and body:
            parser.feed_data(body)
        return Reply(parser.get_status_code(), b"".join(collector.body), collector.kept(method))

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed.done()

    def close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    abort = close

    def pause_reading(self) -> None:
        """The whole request is there already."""

    def resume_reading(self) -> None:
        """The whole request is there already."""


class _Collector:
    """An answer's headers and body."""

    def __init__(self) -> None:
        self.pairs: Pairs = []
        self.body: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def kept(self, method: str) -> Pairs:
        """Headers that are not the connection's; the length of what a HEAD request does not get stays."""
        dropped = _OWN - {b"content-length"} if method == "HEAD" else _OWN
        return [(name, value) for name, value in self.pairs if name.lower() not in dropped]


def _as_sent(request: Request) -> bytes:
    kept = [(name, value) for name, value in request.pairs if name.lower() not in _OWN]
    if "host" not in request.headers:  # HTTP/1.0
        kept.append((b"Host", b"router"))
    return b"%b %b HTTP/1.1\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        request.method.encode("ascii"), request.target.encode("latin-1"), block(kept), len(request.body), request.body,
    )  # fmt: skip
