"""Whatever bytes a client sends: the server answers or closes, and only what is beyond doubt is handed on."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.http.intake import Intake
from router.http.message import Reply, Request
from router.http.response import ResponseWriter
from router.http.server import Limits, ServerConnection, Turn

LIMITS = Limits(head_bytes=2048, body_bytes=4096)
GET = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST /in HTTP/" + version + b"\r\nHost: x\r\n" + lines + b"\r\n" + body


class Line(asyncio.Transport):
    """A client's end in memory."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 5)})
        self.written = b""
        self.closing = False
        self.resting = False

    def write(self, data) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.resting = True

    def resume_reading(self) -> None:
        self.resting = False


class Service:
    """Remembers what it was handed and answers 200."""

    def __init__(self) -> None:
        self.served: list[Request] = []

    def look(self, request: Request) -> Reply | None:
        return None

    def serve(self, request: Request, client: ResponseWriter, turn: Turn) -> None:
        turn.run(self._answer(request, client))

    async def _answer(self, request: Request, client: ResponseWriter) -> None:
        self.served.append(request)
        client.reply(Reply(200, b"fine"))

    def failed(self, request: Request, client: ResponseWriter, error: Exception) -> None:
        raise error

    def refused(self, reply: Reply) -> None:
        pass


async def converse(pieces: list[bytes]) -> tuple[Service, Line]:
    """Feed ``pieces`` one after the other, with turns of the event loop in between."""
    service, line, connections = Service(), Line(), set()
    connection = ServerConnection(service, LIMITS, connections)
    connection.connection_made(line)
    for piece in pieces:
        if line.closing:
            break
        connection.data_received(piece)
        for _ in range(40):
            await asyncio.sleep(0)
    connection.connection_lost(None)
    assert not connections
    return service, line


def say(*pieces: bytes) -> tuple[Service, Line]:
    return asyncio.run(converse(list(pieces)))


def statuses(line: Line) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", line.written)]


SMUGGLING = {
    "two lengths": post(b"Content-Length: 4", b"Content-Length: 9", body=b"abcd" + GET),
    "one length twice": post(b"Content-Length: 4", b"Content-Length: 4", body=b"abcd" + GET),
    "a list of lengths": post(b"Content-Length: 4, 4", body=b"abcd" + GET),
    "a signed length": post(b"Content-Length: +4", body=b"abcd" + GET),
    "a hexadecimal length": post(b"Content-Length: 0x4", body=b"abcd" + GET),
    "a length with an underscore": post(b"Content-Length: 1_0", body=b"abcdabcdab" + GET),
    "an endless length": post(b"Content-Length: 99999999999999999999999", body=b"abcd" + GET),
    "a length and chunks": post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + GET),
    "chunks and a length": post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n" + GET),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n" + GET),
    "chunked in two headers": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", body=b"0\r\n\r\n" + GET),
    "chunked is not last": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n" + GET),
    "packed chunks": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + GET),
    "identity": post(b"Transfer-Encoding: identity", body=GET),
    "nearly chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + GET),
    "chunked with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + GET),
    "chunked by quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + GET),
    "chunks in 1.0": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + GET, version=b"1.0"),
    "a space before the colon": post(b"Content-Length : 4", body=b"abcd" + GET),
    "a folded header": post(b"X: a\r\n b", b"Content-Length: 4", body=b"abcd" + GET),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n" + GET),
    "a folded first header": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a header without a name": post(b": 4", b"Content-Length: 4", body=b"abcd" + GET),
    "a header without a colon": post(b"Content-Length 4", body=b"abcd" + GET),
    "a carriage return alone": post(b"X: a\rContent-Length: 4", body=b"abcd" + GET),
    "a line feed alone": b"POST / HTTP/1.1\nHost: x\nContent-Length: 4\n\nabcd" + GET,
    "a null byte": post(b"X: a\x00b", body=GET),
    "a chunk size with a prefix": post(b"Transfer-Encoding: chunked", body=b"0x4\r\nabcd\r\n0\r\n\r\n" + GET),
    "a signed chunk size": post(b"Transfer-Encoding: chunked", body=b"+4\r\nabcd\r\n0\r\n\r\n" + GET),
    "a chunk size and a space": post(b"Transfer-Encoding: chunked", body=b"4 \r\nabcd\r\n0\r\n\r\n" + GET),
    "a chunk size that overflows": post(b"Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\nabcd\r\n0\r\n\r\n"),
    "no chunk size": post(b"Transfer-Encoding: chunked", body=b"\r\nabcd\r\n0\r\n\r\n" + GET),
    "a chunk longer than its size": post(b"Transfer-Encoding: chunked", body=b"3\r\nabcd\r\n0\r\n\r\n" + GET),
    "chunks ended by line feeds": post(b"Transfer-Encoding: chunked", body=b"4\nabcd\n0\n\n" + GET),
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a whole URL with a fragment": b"GET http://x/a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is a name": b"GET ok HTTP/1.1\r\nHost: x\r\n\r\n",
    "an authority as target": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "another protocol's target": b"GET ftp://x/y HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version of its own": b"GET / HTTP/1.7\r\nHost: x\r\n\r\n",
    "an upgrade with chunks": post(
        b"Connection: upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked", body=b"4\r\nabcd\r\n0\r\n\r\n" + GET
    ),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_an_ambiguous_request_is_refused_and_nothing_behind_it_is_read(name):
    service, line = say(SMUGGLING[name], GET)
    assert not service.served
    assert line.closing
    (status,) = statuses(line)
    assert 400 <= status <= 505
    assert b"Connection: close" in line.written


@pytest.mark.parametrize("name", SMUGGLING)
def test_the_same_byte_by_byte(name):
    service, line = say(*[bytes([byte]) for byte in SMUGGLING[name] + GET])
    assert not service.served
    assert line.closing
    assert len(statuses(line)) == 1


def test_requests_before_a_bad_one_are_answered_first():
    service, line = say(GET + GET + SMUGGLING["two lengths"])
    assert [request.path for request in service.served] == ["/ok", "/ok"]
    assert statuses(line) == [200, 200, 400]


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_pipelined_requests_of_all_kinds_are_told_apart(size):
    sent = (
        GET
        + post(b"Content-Length: 4", body=b"abcd")
        + post(b"Transfer-Encoding: chunked", body=b"2;x=1\r\nab\r\n2\r\ncd\r\n0\r\nTrailer: dropped\r\n\r\n")
        + b"HEAD /h?q=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        + b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"
        + b"GET http://other/whole?u=r HTTP/1.1\r\nHost: x\r\n\r\n"
        + b"GET http://other?u=/workers HTTP/1.1\r\nHost: x\r\n\r\n"
        + b"GET /last HTTP/1.0\r\n\r\n"
    )
    service, line = say(*[sent[start : start + size] for start in range(0, len(sent), size)])
    got = [(request.method, request.target, request.body) for request in service.served]
    assert got == [
        ("GET", "/ok", b""),
        ("POST", "/in", b"abcd"),
        ("POST", "/in", b"abcd"),
        ("HEAD", "/h?q=1", b""),
        ("OPTIONS", "*", b""),
        ("GET", "/whole?u=r", b""),
        ("GET", "/?u=/workers", b""),
        ("GET", "/last", b""),
    ]
    assert all("trailer" not in request.headers for request in service.served)
    assert line.closing  # HTTP/1.0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 3000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 6000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 500, 431),
        (post(b"Content-Length: 5000"), 413),
        (post(b"Transfer-Encoding: chunked", body=b"800\r\n" + b"x" * 2048 + b"\r\n") + b"900\r\n" + b"x" * 2304, 413),
        (post(b"Transfer-Encoding: chunked", body=b"1;" + b"x" * 5000), 431),
        (post(b"Transfer-Encoding: chunked", body=b"0\r\nX: " + b"x" * 5000), 431),
        (b"\r\n" * 3000, 431),
    ],
)
@pytest.mark.parametrize("size", [100, 100_000])
def test_limits_hold_however_the_bytes_arrive(sent, status, size):
    service, line = say(*[sent[start : start + size] for start in range(0, len(sent), size)])
    assert not service.served
    assert statuses(line) == [status]
    assert line.closing


def test_a_client_that_waits_for_a_word_is_told_to_go_on():
    _, line = say(post(b"Content-Length: 4", b"Expect: 100-continue"), b"abcd")
    assert line.written.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


TOKENS = st.sampled_from(
    [
        b"GET", b"POST", b" ", b"/", b"/a", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"Host: x", b"\r\n\r\n",
        b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Connection: close", b"0\r\n\r\n",
        b"5\r\nhello\r\n", b"hello", b"Expect: 100-continue", b"Upgrade: websocket", b"Connection: upgrade", b":",
        b"\x00",
        GET, post(b"Content-Length: 5", body=b"hello"), post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ]
)  # fmt: skip
BYTES = st.one_of(st.binary(max_size=300), st.lists(TOKENS, max_size=14).map(b"".join))


@settings(max_examples=400, deadline=None)
@given(st.lists(BYTES, min_size=1, max_size=4))
def test_no_bytes_break_the_server(pieces):
    """Every request that was handed on got one answer, in order, and at most one refusal follows them."""
    service, line = say(*pieces)
    answers = [status for status in statuses(line) if status != 100]
    refused = [status for status in answers if status != 200]
    assert answers[: len(service.served)] == [200] * len(service.served)
    assert len(refused) <= 1
    assert not refused or line.closing


@settings(max_examples=200, deadline=None)
@given(st.lists(BYTES, min_size=1, max_size=3).map(b"".join), st.integers(1, 40))
def test_what_is_read_does_not_depend_on_how_it_arrives(sent, size):
    whole, _ = say(sent)
    pieces, _ = say(*[sent[start : start + size] for start in range(0, len(sent), size)])
    kept = [(request.method, request.target, request.body, request.pairs) for request in whole.served]
    assert kept == [(request.method, request.target, request.body, request.pairs) for request in pieces.served]


def test_an_upgrade_is_declined_and_what_follows_is_read():
    service, line = say(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + GET)
    assert [request.path for request in service.served] == ["/a", "/ok"]
    assert statuses(line) == [200, 200]


@pytest.mark.parametrize("length", [1, 4, 4000])
@pytest.mark.parametrize("size", [1, 7, 3000, 10**6])
def test_an_upgrade_with_a_body_is_declined_and_the_body_read(length, size):
    """As Java's HTTP client asks for HTTP/2 with each request over plain connections."""
    body = (GET * (length // len(GET) + 1))[:length]
    head = b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB"
    sent = post(*head, b"Content-Length: %d" % length, body=body + GET)
    service, line = say(*[sent[start : start + size] for start in range(0, len(sent), size)])
    assert [(request.method, request.body) for request in service.served] == [("POST", body), ("GET", b"")]
    assert statuses(line) == [200, 200]


def test_many_upgrades_in_a_row_are_declined_one_by_one():
    """None is read within another: their number is the client's to choose."""
    whole: list[Request] = []
    intake = Intake(65536, 4096, lambda _request: None, whole.append, "192.0.2.1", "http")
    intake.feed(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" * 900 + GET)
    assert [request.path for request in whole] == ["/a"] * 900 + ["/ok"]


@pytest.mark.parametrize("length", [b"0", b"00"])
def test_an_upgrade_with_an_empty_body_is_answered(length):
    service, line = say(post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: " + length) + GET)
    assert [request.method for request in service.served] == ["POST", "GET"]
    assert statuses(line) == [200, 200]
