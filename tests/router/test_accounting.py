"""Whatever goes wrong and whoever leaves: every lease is released once, and nothing stays under way."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.router.conftest import Fleet, chat, running, until
from tests.router.fake_backend import FakeBackend, Fault
from tests.router.test_cancel import REQUEST

LEAVING = st.one_of(st.none(), st.integers(min_value=0, max_value=80))
FAULTS = st.sampled_from([None, Fault.RESET, Fault.EMPTY, Fault.CUT, Fault.STATUS, Fault.HANG])


@dataclass(frozen=True)
class Visitor:
    """A client; ``leaves_after`` so many turns of the event loop, or stays to the end."""

    stream: bool
    leaves_after: int | None


async def visit(fleet: Fleet, visitor: Visitor) -> None:
    body = chat("hello " * 50, stream=visitor.stream)
    if visitor.leaves_after is None:
        try:
            async with fleet.client.post("/v1/chat/completions", json=body) as answer:
                await answer.read()
        except aiohttp.ClientError:
            return  # a cut stream
        return
    _, writer = await asyncio.open_connection("127.0.0.1", fleet.router.port)
    data = json.dumps(body).encode()
    writer.write(REQUEST % len(data) + data)
    for _ in range(visitor.leaves_after):
        await asyncio.sleep(0)
    writer.transport.abort()


async def play(faults: list[Fault | None], visitors: list[Visitor]) -> None:
    backends = [FakeBackend(fault=fault, status=503) for fault in faults]
    async with running(*backends, first_byte_timeout_secs=0.05, disable_health_check=True) as fleet:
        await asyncio.gather(*(visit(fleet, visitor) for visitor in visitors))
        await until(lambda: fleet.router.inflight.count == 0)
        loads = [fleet.router.leases.load(backend.url) for backend in backends]
        assert [(load.requests, load.prefill_tokens, load.decodes) for load in loads] == [(0, 0, 0)] * len(backends)
        await until(lambda: all(backend.running == 0 for backend in backends))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    faults=st.lists(FAULTS, min_size=1, max_size=3),
    visitors=st.lists(st.builds(Visitor, stream=st.booleans(), leaves_after=LEAVING), min_size=1, max_size=6),
)
def test_no_lease_is_lost_or_released_twice(faults, visitors):
    asyncio.run(play(faults, visitors))


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_at_any_turn_of_the_event_loop_leaves_nothing_behind(stream):
    async with running(FakeBackend()) as fleet:
        for turns in range(60):
            await visit(fleet, Visitor(stream, turns))
            await until(lambda: fleet.router.inflight.count == 0 and fleet.leases() == 0)
        await until(lambda: fleet.backends[0].running == 0)


async def test_a_worker_that_is_removed_and_comes_back_starts_with_no_load():
    async with running(FakeBackend()) as fleet:
        (backend,) = fleet.backends
        (worker,) = fleet.router.registry.all()
        backend.may_go_on.clear()
        answer = await fleet.client.post("/v1/chat/completions", json=chat("hi", stream=True))
        fleet.router.registry.remove(worker)
        fleet.router.registry.add(worker.spec)
        assert fleet.leases() == 0
        backend.may_go_on.set()
        await answer.read()
        await until(lambda: fleet.router.inflight.count == 0)
        assert fleet.leases() == 0
