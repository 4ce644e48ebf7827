"""Connections to backends: send a request, wait for its first byte, hand over the rest as it comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from router.config import Timeouts
from router.fleet.worker import Worker
from router.retry import Failure

POOL_IDLE_SECONDS = (
    3.0  # below the keep-alive of the usual servers (uvicorn: 5), so that few kept connections are stale
)
MAX_HEADER_BYTES = 65536
_NO_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class UpstreamError(Exception):
    """An exchange with a worker failed. The text is for the log: it may name the worker."""

    def __init__(self, failure: Failure, detail: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"{failure.value}: {detail}")
        self.failure = failure
        self.status = status  # of a Failure.STATUS or BUSY
        self.retry_after = retry_after  # seconds, as the worker said


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it goes to a worker. ``target`` is the raw path with its query; ``body`` the bytes that came."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes


class Answer:
    """A worker's answer, from its head on. Close it always: an unfinished one cancels the work at the worker."""

    def __init__(self, response: aiohttp.ClientResponse, deadline: float | None, timeouts: Timeouts) -> None:
        self._response = response
        self._deadline = deadline
        self._timeouts = timeouts
        self.first = b""  # set by peek()

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def reason(self) -> str | None:
        return self._response.reason

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self._response.headers

    @property
    def complete(self) -> bool:
        """Nothing follows what was read."""
        return self._response.content.at_eof()

    async def peek(self, deadline: float | None) -> None:
        """Wait for the first bytes of the body; empty when it has none. Raises :class:`UpstreamError`."""
        try:
            async with asyncio.timeout_at(deadline):
                self.first = await self._response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failed(error, reused=False) from error

    async def read(self) -> bytes:
        """The next bytes as they came; empty at the end. Raises :class:`UpstreamError` when it is cut or stalls."""
        idle = self._timeouts.idle
        deadline = self._deadline
        if idle is not None:
            deadline = _earlier(asyncio.get_running_loop().time() + idle, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failed(error, reused=False) from error

    def close(self) -> None:
        self._response.close()


class Upstream:
    """The pool of connections to all workers."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=POOL_IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NO_AUTO_HEADERS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            trace_configs=[tracing],
        )

    async def close(self) -> None:
        await self._session.close()

    async def send(
        self, worker: Worker, outgoing: Outgoing, total_deadline: float | None
    ) -> tuple[Answer, float | None]:
        """(the answer at its head, the deadline of its first byte). Raises :class:`UpstreamError`."""
        first_byte = self._timeouts.first_byte
        now = asyncio.get_running_loop().time()
        deadline = _earlier(now + first_byte, total_deadline) if first_byte is not None else total_deadline
        trace = SimpleNamespace(reused=False)
        headers = outgoing.headers
        if worker.auth:
            headers = headers.copy()
            headers.update(worker.auth)
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session.request(
                    outgoing.method,
                    URL(worker.url + outgoing.target, encoded=True),
                    headers=headers,
                    data=outgoing.body or None,
                    allow_redirects=False,
                    trace_request_ctx=trace,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failed(error, trace.reused) from error
        return Answer(response, total_deadline, self._timeouts), deadline

    async def fetch(
        self, worker: Worker, method: str, path: str, timeout: float, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """(status, body) of a small control request; a body is JSON. Raises :class:`UpstreamError`."""
        headers = worker.auth if body is None else {**worker.auth, "Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(method, worker.url + path, headers=headers, data=body) as response,
            ):
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failed(error, reused=False) from error


async def _note_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    if (trace := context.trace_request_ctx) is not None:
        trace.reused = True


def _earlier(one: float, other: float | None) -> float:
    return one if other is None else min(one, other)


def _failed(error: Exception, reused: bool) -> UpstreamError:
    """The failure that an exception of the client library stands for."""
    if isinstance(error, (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError)):
        return UpstreamError(Failure.CONNECT, str(error) or type(error).__name__)
    if isinstance(error, TimeoutError):
        return UpstreamError(Failure.TIMEOUT, "no answer in time")
    gone = isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError))
    return UpstreamError(Failure.STALE if reused and gone else Failure.RESET, str(error) or type(error).__name__)
