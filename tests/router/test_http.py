"""HTTP/1.1 by the letter, over a real socket, through the whole router."""

from __future__ import annotations

import asyncio
import json

from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend

BODY = json.dumps(chat("hi", max_tokens=2)).encode()
POST = b"POST /v1/chat/completions HTTP/%b\r\nHost: x\r\n%b\r\n%b"


def post(*headers: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    return POST % (version, b"".join(header + b"\r\n" for header in headers), body)


LENGTH = b"Content-Length: %d" % len(BODY)


async def say(port: int, sent: bytes) -> bytes:
    """Everything that comes back until the router closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_pipelined_requests_are_answered_in_their_order_whoever_answers_them():
    async with running(FakeBackend()) as fleet:
        sent = (
            post(LENGTH)
            + b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n"
            + b"HEAD /liveness HTTP/1.1\r\nHost: x\r\n\r\n"
            + b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = await say(fleet.router.port, sent)
        order = [answer.find(mark) for mark in (b"tok tok", b'{"status": "alive"}', b"echo")]
        assert order == sorted(order)
        assert -1 not in order
        assert answer.count(b"HTTP/1.1 200 OK\r\n") == 4
        assert answer.count(b'{"status": "alive"}') == 1


async def test_a_chunked_body_reaches_the_backend_whole_and_its_trailer_does_not():
    async with running(FakeBackend()) as fleet:
        chunks = b"5;x=y\r\n%b\r\n%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
        await say(fleet.router.port, post(b"Transfer-Encoding: chunked", b"Connection: close", body=chunks))
        (got,) = fleet.backends[0].received
        assert got.body == BODY
        assert got.header("Content-Length") == str(len(BODY))
        assert got.header("Transfer-Encoding") is None
        assert got.header("X-Trailer") is None


async def test_a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection():
    async with running(FakeBackend()) as fleet:
        body = json.dumps(chat("hi", stream=True)).encode()
        answer = await say(fleet.router.port, post(b"Content-Length: %d" % len(body), body=body, version=b"1.0"))
        head, _, text = answer.partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert b"Connection: close" in head
        assert text.startswith(b"data: ")
        assert text.endswith(b"data: [DONE]\n\n")


async def test_a_refused_key_is_told_before_the_body_is_sent():
    async with running(FakeBackend(), api_key="secret") as fleet:
        answer = await say(fleet.router.port, post(b"Content-Length: 50000000", b"Expect: 100-continue", body=b""))
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"Connection: close" in answer


async def test_an_ambiguous_request_reaches_no_backend_and_is_counted():
    async with running(FakeBackend()) as fleet:
        answer = await say(fleet.router.port, post(LENGTH, b"Transfer-Encoding: chunked"))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert not fleet.backends[0].received
        assert fleet.metric("smg_http_responses_total", status_code="400") == 1


async def test_connections_are_kept_on_both_sides_and_closed_with_the_router():
    async with running(FakeBackend(), disable_health_check=True) as fleet:
        for _ in range(5):
            async with fleet.client.post("/v1/chat/completions", data=BODY) as answer:
                assert answer.status == 200
                await answer.read()
        reader, writer = await asyncio.open_connection("127.0.0.1", fleet.router.port)
        writer.write(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b'"alive"}')
        await fleet.router.stop()
        assert await reader.read() == b""
        writer.close()
        await until(lambda: fleet.backends[0].running == 0)


async def test_a_client_that_goes_on_sending_still_reads_why_it_was_refused():
    async with running(FakeBackend(), max_payload_size=1000) as fleet:
        reader, writer = await asyncio.open_connection("127.0.0.1", fleet.router.port)
        writer.write(post(b"Content-Length: 3000000", body=b"x" * 3_000_000))
        await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        writer.close()
