"""A client that leaves takes its request with it; a slow one slows its backend and nothing else."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


async def send_raw(port: int, body: dict) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    data = json.dumps(body).encode()
    writer.write(REQUEST % len(data) + data)
    return reader, writer


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_token_cancels_the_request_at_the_backend(stream):
    async with running(FakeBackend()) as fleet:
        (backend,) = fleet.backends
        backend.may_answer.clear()
        _, writer = await send_raw(fleet.router.port, chat("hi", stream=stream))
        await backend.until(lambda: backend.running == 1)
        writer.close()
        await backend.until(lambda: backend.abandoned == 1)
        await until(lambda: fleet.leases() == 0)
        await until(lambda: fleet.metric("smg_http_responses_total", status_code="499") == 1)


async def test_leaving_in_the_middle_of_a_stream_cancels_the_request_at_the_backend():
    async with running(FakeBackend()) as fleet:
        (backend,) = fleet.backends
        backend.may_go_on.clear()
        reader, writer = await send_raw(fleet.router.port, chat("hi", stream=True))
        await reader.readuntil(b"tok 0")
        writer.close()
        await backend.until(lambda: backend.abandoned == 1)
        await until(lambda: fleet.leases() == 0)


async def test_a_client_that_left_is_not_held_against_the_backend():
    async with running(FakeBackend()) as fleet:
        (backend,) = fleet.backends
        backend.may_answer.clear()
        _, writer = await send_raw(fleet.router.port, chat("hi"))
        await backend.until(lambda: backend.running == 1)
        writer.close()
        await until(lambda: fleet.metric("smg_http_responses_total", status_code="499") == 1)
        assert fleet.metric("warmlane_worker_attempts_total", worker=backend.url, outcome="client_gone") == 1
        assert len(backend.received) == 1


async def test_a_client_that_does_not_read_stops_its_backend():
    """The backend cannot write far more than the buffers between it and the client hold."""
    chunk, count = "x" * 65536, 1000
    async with running(FakeBackend(chunk=chunk)) as fleet:
        (backend,) = fleet.backends
        connection = socket.create_connection(("127.0.0.1", fleet.router.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        data = json.dumps(chat("hi", stream=True, max_tokens=count)).encode()
        connection.sendall(REQUEST % len(data) + data)
        await backend.until(lambda: backend.running == 1)
        await stands_still(backend)
        assert backend.running == 1
        assert backend.written < count * len(chunk) // 2
        async with fleet.client.post("/v1/chat/completions", json=chat("other", max_tokens=1)) as answer:
            assert answer.status == 200
        connection.close()
        await backend.until(lambda: backend.abandoned == 1)
        await until(lambda: fleet.leases() == 0)


async def stands_still(backend: FakeBackend) -> None:
    """Wait until the backend has not written for 200 turns of the event loop that each waited for input."""
    still, before = 0, -1
    async with asyncio.timeout(20):
        while still < 200:
            await asyncio.sleep(0.001)
            still = still + 1 if backend.written == before else 0
            before = backend.written
