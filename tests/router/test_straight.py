"""The straight way: whatever happens at whichever byte, one answer, no lease left, the worker's connection closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.app import Router
from router.config import RouterConfig
from router.http.pool import Pool
from router.http.server import Limits, ServerConnection
from router.retry import Failure
from router.upstream import UpstreamError
from tests.router.conftest import chat, until

USAGE = b'"usage":{"prompt_tokens":4,"completion_tokens":2}'
JSON_BODY = b'{"choices":[{"message":{"content":"hello"}}],' + USAGE + b"}"
JSON_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(JSON_BODY),
    JSON_BODY,
)
EVENTS = [b'data: {"n":%d}\n\n' % n for n in range(4)] + [b"data: {" + USAGE + b"}\n\n", b"data: [DONE]\n\n"]
STREAM_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS)
    + b"0\r\n\r\n"
)
FIRST_BYTE = STREAM_ANSWER.index(EVENTS[0][:1] + b"ata") + 1


class Trouble(Enum):
    NONE = auto()
    CLIENT_LEAVES = auto()
    BACKEND_CLOSES = auto()
    BACKEND_RESETS = auto()
    GARBAGE = auto()
    SILENCE = auto()


class Wire(asyncio.Transport):
    """A connection's other end: keeps what was written, and tells of its loss as a socket would, a turn later."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.protocol: asyncio.Protocol | None = None
        self.written = b""
        self.closing = False
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.written += data
            self.on_write()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def lose(self, error: Exception | None) -> None:
        if not self.closing:
            self.closing = True
            self.protocol.connection_lost(error)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False


@dataclass
class Stage:
    """A router whose connections on both sides are wires."""

    router: Router
    client: Wire
    connection: ServerConnection
    backends: list[Wire]

    def ask(self, **fields) -> None:
        body = json.dumps(chat("hello there", model="m", **fields)).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.connection.data_received(head + body)

    def asked(self) -> list[Wire]:
        return [wire for wire in self.backends if wire.written]

    def metric(self, name: str, **labels: str) -> float:
        return self.router.metrics.registry.get_sample_value(name, labels) or 0.0

    def answers(self) -> int:
        """Requests that ended, with whichever status."""
        (family,) = self.router.metrics.responses.collect()
        return int(sum(sample.value for sample in family.samples if sample.name.endswith("_total")))

    def attempts(self) -> int:
        (family,) = self.router.metrics.worker_outcomes.collect()
        return int(sum(sample.value for sample in family.samples if sample.name.endswith("_total")))

    def leases(self) -> list[tuple[int, int, int]]:
        loads = [self.router.leases.load(worker.url) for worker in self.router.registry.all()]
        return [(load.requests, load.prefill_tokens, load.decodes) for load in loads]


async def turns(count: int = 12) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def nothing_else(*_arguments: object) -> tuple[int, bytes]:
    """The router's own questions to its workers would take the idle connections."""
    raise UpstreamError(Failure.CONNECT, "not now")


@asynccontextmanager
async def stage(workers: int = 2, **fields):
    """Every worker has one idle connection."""
    hosts = [f"127.0.0.1:{port + 1}" for port in range(workers)]
    settings = {"retry_max_retries": 2, "retry_initial_backoff_ms": 0, "connect_timeout_secs": 0.05, **fields}
    router = Router(
        RouterConfig(host="127.0.0.1", port=0, seed=1, router_hosts=hosts, disable_health_check=True, **settings)
    )
    await router.start()
    upstream = router._upstream
    upstream.fetch = nothing_else
    wires = []
    for worker in router.registry.all():
        pool: Pool = upstream._pool(worker)
        wire = Wire()
        wire.protocol = connection = pool._make()
        connection.connection_made(wire)
        pool._all.add(connection)
        pool._freed(connection)
        wires.append(wire)
    client = Wire()
    client.protocol = connection = ServerConnection(router._listeners[0]._service, Limits(), set())
    connection.connection_made(client)
    try:
        yield Stage(router, client, connection, wires)
    finally:
        client.lose(None)
        await router.stop()


def happen(trouble: Trouble, stage: Stage, wire: Wire) -> None:
    if trouble is Trouble.CLIENT_LEAVES:
        stage.client.lose(None)
    elif trouble is Trouble.BACKEND_CLOSES:
        wire.lose(None)
    elif trouble is Trouble.BACKEND_RESETS:
        wire.lose(ConnectionResetError("reset by peer"))
    elif trouble is Trouble.GARBAGE and not wire.closing:
        wire.protocol.data_received(b"\x00\x01 no such thing\r\n\r\n")
    elif trouble is Trouble.SILENCE:
        silence = stage.router.protection.silence
        for quiet in list(silence._quiet.values()):
            for wait in list(quiet.waits):
                wait.give_up()


async def play(answer: bytes, cuts: list[int], at: int, trouble: Trouble, stream: bool) -> None:
    """``answer`` comes in pieces; before the byte ``at`` comes the trouble."""
    async with stage() as here:
        here.ask(stream=stream)
        (first,) = here.asked()
        edges = sorted({0, len(answer), at, *(cut for cut in cuts if cut < len(answer))})
        for begin, end in pairwise(edges):
            if begin == at:
                happen(trouble, here, first)
                await turns()
            if not first.closing and begin < end:
                first.protocol.data_received(answer[begin:end])
        for second in here.asked():  # a second attempt ends well
            if second is not first and not second.closing:
                second.protocol.data_received(answer)
        await until(lambda: here.router.inflight.count == 0)
        await turns()
        assert here.leases() == [(0, 0, 0)] * 2
        assert here.answers() == 1
        assert here.router.protection.silence.due(float("inf")) == []
        check_client(here, answer, at, trouble, stream)
        if trouble is not Trouble.NONE and at < len(answer):
            assert first.closing


def check_client(here: Stage, answer: bytes, at: int, trouble: Trouble, stream: bool) -> None:
    seen = here.client.written
    assert seen.count(b"HTTP/1.1 ") <= 1
    if trouble is Trouble.CLIENT_LEAVES:
        whole = at >= len(answer)
        status = "200" if whole else "499"
        assert here.metric("smg_http_responses_total", status_code=status) == 1
        assert here.attempts() == 1
    elif stream and FIRST_BYTE <= at < len(answer) and trouble not in (Trouble.NONE, Trouble.SILENCE):
        assert here.metric("smg_http_responses_total", status_code="502") == 1
        assert not seen.endswith(b"0\r\n\r\n")
        assert here.client.closing
    else:  # whole, at once or from the second worker
        assert seen.startswith(b"HTTP/1.1 200 OK")
        head, _, body = seen.partition(b"\r\n\r\n")
        assert (unchunked(body) if b"chunked" in head else body) == (b"".join(EVENTS) if stream else JSON_BODY)


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body that has its end."""
    content = b""
    while body != b"0\r\n\r\n":
        size, _, rest = body.partition(b"\r\n")
        content, body = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return content


PLACES = st.integers(min_value=0, max_value=len(STREAM_ANSWER))
PIECES = st.lists(PLACES, max_size=6)


@settings(max_examples=60, deadline=None)
@given(cuts=PIECES, at=st.integers(0, len(JSON_ANSWER)), trouble=st.sampled_from(Trouble))
def test_whole_answers(cuts, at, trouble):
    if trouble is Trouble.GARBAGE and at:  # inside a body every byte is content
        trouble = Trouble.BACKEND_RESETS
    if trouble is Trouble.SILENCE and at > JSON_ANSWER.index(b"{"):  # nobody waits for a first byte any more
        trouble = Trouble.NONE
    asyncio.run(play(JSON_ANSWER, cuts, at, trouble, stream=False))


@settings(max_examples=60, deadline=None)
@given(cuts=PIECES, at=PLACES, trouble=st.sampled_from(Trouble))
def test_streams(cuts, at, trouble):
    if trouble is Trouble.GARBAGE and at:
        trouble = Trouble.BACKEND_RESETS
    if trouble is Trouble.SILENCE and at >= FIRST_BYTE:  # nobody waits for a first byte any more
        trouble = Trouble.NONE
    asyncio.run(play(STREAM_ANSWER, cuts, at, trouble, stream=True))


async def test_pipelined_requests_are_answered_in_order_over_one_connection():
    async with stage(workers=1) as here:
        for _ in range(3):
            here.ask(stream=False)
        (wire,) = here.backends
        for count in range(1, 4):
            assert wire.written.count(b"POST ") == count
            wire.protocol.data_received(JSON_ANSWER)
        assert here.client.written.count(JSON_BODY) == 3
        assert here.router.inflight.count == 0


async def test_an_error_goes_to_the_second_worker_and_the_last_one_to_the_client():
    async with stage() as here:
        here.ask()
        error = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
        for _ in range(2):
            (wire,) = [wire for wire in here.asked() if wire.protocol._answer is not None]
            wire.protocol.data_received(error)
            await turns()
        assert here.client.written.startswith(b"HTTP/1.1 503 Busy")
        assert here.client.written.endswith(b"busy")
        assert here.leases() == [(0, 0, 0)] * 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_a_byte_is_tried_elsewhere(stream):
    async with stage() as here:
        here.ask(stream=stream)
        (first,) = here.asked()
        first.protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await turns()
        (second,) = [wire for wire in here.asked() if wire is not first]
        second.protocol.data_received(JSON_ANSWER)
        await turns()
        assert here.client.written.endswith(JSON_BODY)


async def test_a_defect_is_answered_with_500_and_leaves_nothing_behind(monkeypatch):
    async with stage() as here:

        def broken(*_arguments: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("router.straight.to_client", broken)
        here.ask()
        (wire,) = here.asked()
        wire.protocol.data_received(JSON_ANSWER)
        assert here.client.written.startswith(b"HTTP/1.1 500 ")
        assert here.leases() == [(0, 0, 0)] * 2
        assert here.router.inflight.count == 0
        assert here.answers() == 1
