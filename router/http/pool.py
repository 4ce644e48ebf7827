"""Connections to backends, kept for the next request."""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

from router.http.answer import Fault
from router.http.client import ClientConnection
from router.http.lull import Lull

IDLE_SECONDS = 60.0  # an unused connection is kept, unless its backend keeps it for less
LEAST_IDLE_SECONDS = 3.0  # below the keep-alive of the usual servers (uvicorn: 5)
SAFE = 0.8  # of the time after which a backend closed an unused one: few kept connections are stale then


class NobodyListens(Fault):
    """The connection was refused: the process that was there is gone."""


class Address(NamedTuple):
    """Where a backend listens, and the Host header that it is asked with."""

    host: str
    port: int
    name: bytes


class Pool:
    """The connections to one backend: idle ones, the last used first."""

    def __init__(
        self, address: Address, tls: ssl.SSLContext | None, connect_seconds: float, idle_seconds: float
    ) -> None:
        self._address = address
        self._tls = tls
        self.host = address.name
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._idle: list[ClientConnection] = []
        self._rest_seconds = IDLE_SECONDS
        self._all: set[ClientConnection] = set()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._lull = Lull(self._loop)

    @property
    def open(self) -> int:
        """Connections that exist, in use or not."""
        return len(self._all)

    def kept(self) -> ClientConnection | None:
        """A connection that waits for a request; None when a new one has to be made."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def connect(self, deadline: float) -> ClientConnection:
        """A new connection. Raises :class:`Fault` (connect; timeout when the request's own deadline came first)."""
        address, loop = self._address, self._loop
        by = min(loop.time() + self._connect_seconds, deadline)
        try:
            async with asyncio.timeout_at(by):
                _, connection = await loop.create_connection(
                    self._make, address.host, address.port,
                    ssl=self._tls, server_hostname=address.host if self._tls else None,
                )  # fmt: skip
        except TimeoutError as error:
            kind = "timeout" if by == deadline else "connect"
            raise Fault(kind, "no connection in time") from error
        except (OSError, ssl.SSLError) as error:
            kind_of_fault = NobodyListens if _refused(error) else Fault
            raise kind_of_fault("connect", str(error) or type(error).__name__) from error
        if connection.usable:
            self._all.add(connection)
        return connection

    def retire(self) -> None:
        """Take no more requests; those under way finish."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def close(self) -> None:
        """Close every connection; answers under way fail."""
        self.retire()
        for connection in list(self._all):
            connection.close()

    def _make(self) -> ClientConnection:
        return ClientConnection(self._freed, self._lost, self._idle_seconds, self._lull)

    def _freed(self, connection: ClientConnection) -> None:
        if self._closed:
            connection.close()
        else:
            connection.rest(self._rest_seconds)
            self._idle.append(connection)

    def _lost(self, connection: ClientConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            if (rested := connection.rested_seconds) < self._rest_seconds:  # else it was closed here
                self._rest_seconds = max(LEAST_IDLE_SECONDS, SAFE * rested)


def _refused(error: Exception) -> bool:
    """A name that is not found or a certificate that is not trusted says nothing of the process.

    Where a name has several addresses the loop raises one plain error for all of them.
    """
    return isinstance(error, ConnectionRefusedError) or (type(error) is OSError and error.errno is None)
