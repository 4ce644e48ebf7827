"""Answers of workers that make no sense end nothing: no health check, no poll, no KV events."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from policies.prefix.block_index import BlockIndex
from router.config import Timeouts
from router.fleet.kv_events import KVEvents
from router.fleet.kv_sources import PATHS
from router.fleet.vitals import Vitals
from router.fleet.worker import Health, Worker, WorkerSpec
from router.upstream import Upstream, UpstreamError
from tests.router.conftest import until
from tests.router.test_load_polls import Fetcher

DEEP = b'{"data": ' + b"[" * 5000 + b"]" * 5000 + b"}"
NONSENSE = [b'{"data": [{"id": "\xff"}]}', b'{"max_total_num_tokens": "\xff", "data": 1}', DEEP, b"", b"[]"]


@pytest.mark.parametrize("body", NONSENSE, ids=["name", "field", "deep", "empty", "list"])
async def test_a_list_of_models_that_cannot_be_read_is_none(body):
    vitals = Vitals(Fetcher({"/v1/models": body}))
    assert await vitals.models(Worker(WorkerSpec(url="http://w:1")), 1.0) is None


@pytest.mark.parametrize("number", [b"1.2.3", b"1e999", b"."])
async def test_a_start_that_is_no_time_is_unknown(number):
    vitals = Vitals(Fetcher({"/metrics": b"process_start_time_seconds %s\n" % number}))
    assert await vitals.started_at(Worker(WorkerSpec(url="http://w:1")), 1.0) is None


@pytest.mark.parametrize("body", NONSENSE, ids=["name", "field", "deep", "empty", "list"])
async def test_after_server_info_that_cannot_be_read_the_other_routes_are_asked(body):
    worker, fetcher = Worker(WorkerSpec(url="http://w:1")), Fetcher(dict.fromkeys(PATHS, body))
    worker.health = Health.HEALTHY
    events = KVEvents(fetcher, BlockIndex(2**20), CollectorRegistry())
    try:
        events.watch(worker)
        await until(lambda: fetcher.asked == list(PATHS))
        assert events.state(worker.url) == "none"
    finally:
        await events.close()


async def test_an_answer_without_an_end_is_given_up():
    async def flood(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 2**20)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    worker = Worker(WorkerSpec(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    upstream = Upstream(Timeouts())
    try:
        with pytest.raises(UpstreamError, match="bytes in answer to /metrics"):
            await upstream.fetch(worker, "GET", "/metrics", 60.0)
    finally:
        await upstream.close()
        server.close()
