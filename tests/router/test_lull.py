"""Streams whose pieces come very fast are read in gulps, and nothing is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from router.http.answer import Answer, Sink
from router.http.client import ClientConnection
from router.http.lull import IN_A_ROW, QUICK_SECONDS, REST_SECONDS, SMALL, Lull, Pace
from router.http.message import Request
from router.http.response import ResponseWriter

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"4\r\nword\r\n"
FAR = 1e9


class Time:
    """The running loop's clock, which stands still unless it is moved."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time()
        self._loop.time = lambda: self._now  # type: ignore[method-assign]

    async def pass_by(self, seconds: float) -> None:
        self._now += seconds
        self._loop.call_soon(lambda: None)  # the loop looks at its timers
        for _ in range(3):
            await asyncio.sleep(0)


class Socket(asyncio.Transport):
    """A backend's connection."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.aborted = False

    def write(self, data: object) -> None:
        """Nobody answers by itself."""

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads
        self.reads = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Client(asyncio.Transport):
    """Where the answer goes."""

    def __init__(self) -> None:
        super().__init__()
        self.got = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.got += data


class Stream:
    """An answer on its way from a backend to a client."""

    def __init__(self) -> None:
        self.time = Time()
        self.socket = Socket()
        self.freed: list[ClientConnection] = []
        self.connection = ClientConnection(self.freed.append, lambda _: None, FAR, Lull(asyncio.get_running_loop()))
        self.connection.connection_made(self.socket)
        self.answer = self._ask()
        self.client = Client()
        self.sink = _writer(self.client)
        self.hear(HEAD)
        self.answer.pour(self.sink, lambda _: None)

    def _ask(self) -> Answer:
        return self.connection.start("POST", b"", b"", FAR, FAR)

    def hear(self, data: bytes) -> None:
        assert self.socket.reads
        self.connection.data_received(data)

    def rush(self) -> None:
        """Until the connection rests."""
        for _ in range(IN_A_ROW + 1):
            self.hear(PIECE)
        assert not self.socket.reads


def _writer(client: Client) -> Sink:
    writer = ResponseWriter(client)
    writer.open(Request("POST", "/", "1.1", [], {}, "", "http"))
    writer.begin(200, None, b"", None, b"")
    client.got = b""
    return writer


async def test_a_fast_stream_rests_and_is_read_on() -> None:
    stream = Stream()
    stream.rush()
    assert stream.client.got == PIECE * (IN_A_ROW + 1)  # what was read went out at once
    await stream.time.pass_by(REST_SECONDS)
    stream.hear(PIECE * 5)
    assert stream.client.got.endswith(PIECE + b"14\r\n" + b"word" * 5 + b"\r\n")
    assert not stream.socket.reads  # it is still fast
    await stream.time.pass_by(REST_SECONDS)
    stream.hear(b"0\r\n\r\n")
    assert stream.client.got.endswith(b"0\r\n\r\n")
    assert stream.freed == [stream.connection]


async def test_a_stream_that_became_slow_is_not_kept() -> None:
    stream = Stream()
    stream.rush()
    await stream.time.pass_by(REST_SECONDS)
    for _ in range(3 * IN_A_ROW):
        await stream.time.pass_by(2 * QUICK_SECONDS)
        stream.hear(PIECE)
        assert stream.socket.reads


async def test_a_client_that_leaves_meanwhile_ends_it() -> None:
    stream = Stream()
    stream.rush()
    stream.answer.close()
    assert stream.socket.aborted
    await stream.time.pass_by(REST_SECONDS)
    assert not stream.socket.reads


async def test_a_client_that_reads_slowly_decides() -> None:
    stream = Stream()
    for _ in range(IN_A_ROW):
        stream.hear(PIECE)
    stream.sink.paused = True
    stream.hear(PIECE)
    assert not stream.socket.reads
    await stream.time.pass_by(REST_SECONDS)
    assert not stream.socket.reads
    stream.sink.paused = False
    resume = stream.sink.on_resume
    assert resume is not None
    resume()
    assert stream.socket.reads


@pytest.fixture
def pace() -> Callable[..., bool]:
    """Says of a piece that comes so many seconds after the last whether a rest is worth it."""
    pace, now = Pace(), 1000.0

    def piece(seconds: float, size: int = 100) -> bool:
        nonlocal now
        now += seconds
        return pace.hurries(size, now)

    return piece


def test_one_pause_begins_the_count_anew(pace: Callable[..., bool]) -> None:
    assert not any(pace(0.0) for _ in range(IN_A_ROW))
    assert not pace(2 * QUICK_SECONDS)
    assert not any(pace(0.0) for _ in range(IN_A_ROW - 1))
    assert pace(0.0)


def test_large_pieces_never_wait(pace: Callable[..., bool]) -> None:
    assert not any(pace(0.0, SMALL + 1) for _ in range(3 * IN_A_ROW))


@pytest.mark.parametrize("seconds", [0.0016, 0.005, 0.02])
def test_tokens_of_a_model_never_wait(pace: Callable[..., bool], seconds: float) -> None:
    assert not any(pace(seconds) for _ in range(3 * IN_A_ROW))
