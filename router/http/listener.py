"""A listening socket and the connections that came in through it."""

from __future__ import annotations

import asyncio
import os
import ssl

from router.http.rush import Rush
from router.http.server import Limits, ServerConnection, Service

BACKLOG = 4096
CUT_SECONDS = 1.0  # for requests under way to notice that they are cut


class Listener:
    """Listens until it is stopped."""

    def __init__(self, service: Service, limits: Limits, tls: ssl.SSLContext | None = None) -> None:
        self._service = service
        self._limits = limits
        self._tls = tls
        self._connections: set[ServerConnection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, *, shared: bool = False) -> int:
        """The port listened on. ``shared``: other processes listen on it too. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        rush = Rush(loop)
        try:
            self._server = await loop.create_server(
                lambda: ServerConnection(self._service, self._limits, self._connections, rush),
                host, port, backlog=BACKLOG, ssl=self._tls, reuse_port=shared or None,
            )  # fmt: skip
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {reason}") from error
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Accept no more and cut what is under way."""
        if self._server is None:
            return
        self.close()
        tasks = [task for connection in list(self._connections) if (task := connection.close()) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=CUT_SECONDS)
        self._server = None
