"""Connections to backends: send a request, wait for its answer, and name what goes wrong."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from router.config import Timeouts
from router.fleet.worker import Worker
from router.http.answer import Answer, Fault
from router.http.client import ClientConnection
from router.http.deadline import NEVER
from router.http.pool import Address, NobodyListens, Pool
from router.retry import Failure

MAX_TOLD = 64 * 2**20  # bytes of an answer to the router itself


class UpstreamError(Exception):
    """An exchange with a worker failed. The text is for the log: it may name the worker."""

    gone = False  # nobody listens at the worker's address

    def __init__(self, failure: Failure, detail: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"{failure.value}: {detail}")
        self.failure = failure
        self.status = status  # of a Failure.STATUS or BUSY
        self.retry_after = retry_after  # seconds, as the worker said

    @classmethod
    def of(cls, fault: Fault) -> UpstreamError:
        """What an exchange's fault is to the router."""
        error = cls(Failure(fault.kind), fault.detail)
        error.gone = isinstance(fault, NobodyListens)
        return error


@dataclass(slots=True)  # frozen ones take a microsecond more to make
class Outgoing:
    """A request as it goes to a worker: raw path with its query, header lines, the bytes of the body that came.

    ``authorization`` is the client's, as a header line: a worker with a key of its own gets that one instead.
    """

    method: str
    target: str
    lines: bytes
    body: bytes
    authorization: bytes = b""


class Watch(Protocol):
    """Somebody who may give an answer up."""

    def can_end(self, give_up: Callable[[], None]) -> None:
        """The answer is being waited for; ``give_up`` ends that."""


class Upstream:
    """The pools of connections to all workers."""

    def __init__(self, timeouts: Timeouts, tls: ssl.SSLContext | None = None) -> None:
        self._timeouts = timeouts
        self._tls = tls
        self._idle = NEVER if timeouts.idle is None else timeouts.idle
        self._pools: dict[str, Pool] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def connections(self) -> int:
        """Connections that are open now, in use or not."""
        return sum(pool.open for pool in self._pools.values())

    async def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def forget(self, worker: Worker) -> None:
        """``worker`` is gone: what is under way finishes."""
        if (pool := self._pools.pop(worker.url, None)) is not None:
            pool.retire()

    async def send(
        self, worker: Worker, outgoing: Outgoing, total_deadline: float | None, watch: Watch | None = None
    ) -> Answer:
        """The answer at its head; close it always. Raises :class:`UpstreamError`.

        ``watch`` gets the means to give the answer up while it is waited for.
        """
        first_byte = self._timeouts.first_byte
        total = NEVER if total_deadline is None else total_deadline
        first_byte_by = NEVER if first_byte is None else self._loop.time() + first_byte
        try:
            return await self._send(worker, outgoing, first_byte_by, total, watch)
        except Fault as fault:
            raise UpstreamError.of(fault) from fault

    def send_now(self, worker: Worker, outgoing: Outgoing, total_deadline: float | None) -> Answer | None:
        """The answer to come, if there is an idle connection to send on."""
        pool = self._pools.get(worker.url)
        if pool is None or (connection := pool.kept()) is None:
            return None
        first_byte = self._timeouts.first_byte
        first_byte_by = NEVER if first_byte is None else self._loop.time() + first_byte
        total = NEVER if total_deadline is None else total_deadline
        return _start(connection, pool.host, worker, outgoing, first_byte_by, total)

    async def fetch(
        self, worker: Worker, method: str, path: str, timeout: float, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """(status, body) of a small control request; a body is JSON. Raises :class:`UpstreamError`."""
        deadline = self._loop.time() + timeout
        lines = b"" if body is None else b"Content-Type: application/json\r\n"
        outgoing = Outgoing(method, path, lines, body or b"")
        try:
            try:
                return await self._fetch(worker, outgoing, deadline)
            except Fault as fault:
                if fault.kind != "stale":
                    raise
            return await self._fetch(worker, outgoing, deadline)
        except Fault as fault:
            raise UpstreamError.of(fault) from fault

    async def _fetch(self, worker: Worker, outgoing: Outgoing, deadline: float) -> tuple[int, bytes]:
        with closing(await self._send(worker, outgoing, deadline, deadline)) as answer:
            told = bytearray()
            while piece := await answer.read():
                told += piece
                if len(told) > MAX_TOLD:
                    raise Fault("reset", f"more than {MAX_TOLD} bytes in answer to {outgoing.target}")
            return answer.status, bytes(told)

    async def _send(
        self, worker: Worker, outgoing: Outgoing, first_byte_by: float, total: float, watch: Watch | None = None
    ) -> Answer:
        pool = self._pools.get(worker.url) or self._pool(worker)
        connection = pool.kept() or await pool.connect(min(first_byte_by, total))
        answer = _start(connection, pool.host, worker, outgoing, first_byte_by, total)
        if watch is not None:
            watch.can_end(answer.give_up)
        try:
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return answer

    def _context(self) -> ssl.SSLContext:
        """Towards https workers; made when there is the first one."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _pool(self, worker: Worker) -> Pool:
        parts = urlsplit(worker.url)
        address = Address(parts.hostname or "", parts.port or 80, parts.netloc.encode("latin-1"))
        secure = parts.scheme == "https"
        tls = self._context() if secure else None
        pool = self._pools[worker.url] = Pool(address, tls, self._timeouts.connect, self._idle)
        return pool


def _start(
    connection: ClientConnection, host: bytes, worker: Worker, outgoing: Outgoing, first_byte_by: float, total: float
) -> Answer:
    key = worker.spec.api_key
    authorization = outgoing.authorization if key is None else f"Authorization: Bearer {key}\r\n".encode("latin-1")
    body = outgoing.body
    length = b"Content-Length: %d\r\n" % len(body) if body or outgoing.method in _WITH_BODY else b""
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b\r\n" % (
        outgoing.method.encode("ascii"), outgoing.target.encode("latin-1"), host, outgoing.lines, authorization, length,
    )  # fmt: skip
    return connection.start(outgoing.method, head, body, first_byte_by, total)


_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
