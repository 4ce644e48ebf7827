"""Unused connections to a backend."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from router.config import Timeouts
from router.fleet.worker import Worker, WorkerSpec
from router.http.deadline import LATE_SECONDS
from router.http.pool import IDLE_SECONDS, LEAST_IDLE_SECONDS, SAFE
from router.upstream import Upstream

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Clock:
    """Moves the running loop's clock on."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._time = self.loop.time
        self._ahead = 0.0
        self.loop.time = lambda: self._time() + self._ahead  # type: ignore[method-assign]

    def move(self, seconds: float) -> None:
        self._ahead += seconds
        self.loop.call_soon(lambda: None)  # the loop looks at its timers

    async def let_pass(self, seconds: float) -> None:
        """Every timer due by then goes off, also one that excuses the loop's lateness once."""
        self.move(seconds)
        for _ in range(3):
            await asyncio.sleep(0)
        self.move(2 * LATE_SECONDS)
        for _ in range(3):
            await asyncio.sleep(0)


class Backend:
    """Answers one request a connection, then waits; ``left`` gets each connection that the router closed."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.left: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        self.writers.append(writer)
        with suppress(ConnectionResetError):
            await reader.read()
        self.left.put_nowait(writer)
        writer.close()


async def gone(upstream: Upstream) -> None:
    """The router has noticed that its connections are closed."""
    while upstream.connections:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)


async def test_an_unused_connection_is_closed_before_its_backend_would():
    clock, backend = Clock(), Backend()
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    worker = Worker(WorkerSpec(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    upstream = Upstream(Timeouts())

    async def ask() -> None:
        assert await upstream.fetch(worker, "GET", "/", 60.0) == (200, b"ok")

    async with server:
        await ask()
        await clock.let_pass(IDLE_SECONDS / 2)
        assert upstream.connections == 1
        backend.writers.pop().close()  # by the backend, after half the time
        await gone(upstream)
        await ask()
        clock.move(IDLE_SECONDS / 2 * SAFE + 1.0)
        await backend.left.get()
        await backend.left.get()  # the second one by the router
        backend.writers.clear()
        await ask()
        backend.writers.pop().close()  # at once, as one that is killed does
        await gone(upstream)
        await ask()
        await clock.let_pass(LEAST_IDLE_SECONDS / 2)
        assert upstream.connections == 1
        clock.move(LEAST_IDLE_SECONDS)
        await gone(upstream)
        await upstream.close()
