"""Breaker, retry budget, Retry-After and silent workers, seen from a client of a whole router."""

from __future__ import annotations

import asyncio

import pytest

from router.breaker import BreakerState
from router.exchange import now_seconds
from router.retry_budget import FLOOR
from tests.router.conftest import Fleet, chat, running, until
from tests.router.fake_backend import FakeBackend, Fault


async def ask(fleet: Fleet, **fields) -> int:
    async with fleet.client.post("/v1/chat/completions", json=chat("hi", **fields)) as answer:
        await answer.read()
        return answer.status


def breaker(fleet: Fleet, backend: FakeBackend) -> BreakerState:
    return fleet.router.protection.guards.state(backend.url, now_seconds())


async def test_a_failing_backend_is_left_alone_until_its_breaker_lets_a_probe_through():
    bad, good = FakeBackend(fault=Fault.STATUS), FakeBackend()
    async with running(bad, good, policy="round_robin") as fleet:
        for _ in range(20):
            assert await ask(fleet) == 200
        assert len(bad.received) == 3
        assert breaker(fleet, bad) is not BreakerState.CLOSED
        bad.fault = None
        await until(lambda: breaker(fleet, bad) is BreakerState.HALF_OPEN)
        for _ in range(2):
            assert await ask(fleet) == 200
        assert len(bad.received) == 4
        assert breaker(fleet, bad) is BreakerState.CLOSED
        turns = [fleet.metric("smg_worker_cb_transitions_total", worker=bad.url, to=to) for to in ("open", "closed")]
        assert turns == [1, 1]


async def test_the_only_backend_is_tried_although_its_breaker_is_open():
    async with running(FakeBackend(fault=Fault.STATUS), disable_retries=True) as fleet:
        assert [await ask(fleet) for _ in range(5)] == [500] * 5
        fleet.backends[0].fault = None
        assert await ask(fleet) == 200


@pytest.mark.parametrize("status", [400, 422, 429])
async def test_errors_of_the_clients_open_no_breaker(status):
    async with running(FakeBackend(fault=Fault.STATUS, status=status)) as fleet:
        for _ in range(10):
            assert await ask(fleet) == status
        assert breaker(fleet, fleet.backends[0]) is BreakerState.CLOSED


async def test_without_a_breaker_a_failing_backend_is_chosen_again_and_again():
    bad, good = FakeBackend(fault=Fault.STATUS), FakeBackend()
    async with running(bad, good, policy="round_robin", disable_circuit_breaker=True) as fleet:
        for _ in range(20):
            assert await ask(fleet) == 200
        assert len(bad.received) >= 10


async def test_a_busy_backend_is_passed_over_for_as_long_as_it_asked():
    headers = {"Retry-After": "60"}
    busy, free = FakeBackend(fault=Fault.STATUS, status=429, status_headers=headers), FakeBackend()
    async with running(busy, free, policy="round_robin") as fleet:
        for _ in range(10):
            assert await ask(fleet) == 200
        assert len(busy.received) == 1
        assert breaker(fleet, busy) is BreakerState.CLOSED


async def test_when_all_are_busy_the_client_learns_when_to_come_back():
    backends = [FakeBackend(fault=Fault.STATUS, status=429, status_headers={"Retry-After": "60"}) for _ in range(2)]
    async with running(*backends) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "60")
        assert [len(backend.received) for backend in backends] == [1, 1]


async def test_a_request_waits_as_long_as_a_busy_backend_asks_when_there_is_no_other():
    async with running(FakeBackend(fault=Fault.STATUS, status=503, status_headers={"Retry-After": "0"})) as fleet:
        assert await ask(fleet) == 503
        assert len(fleet.backends[0].received) == 5


async def test_without_retry_budget_a_failure_is_the_answer():
    bad, good = FakeBackend(fault=Fault.STATUS), FakeBackend()
    async with running(bad, good, policy="round_robin", disable_circuit_breaker=True) as fleet:
        for _ in range(FLOOR):
            fleet.router.protection.budget.take(now_seconds())
        statuses = {await ask(fleet) for _ in range(20)}
        assert statuses == {200, 500}
        assert fleet.metric("warmlane_retries_denied_total") >= 1


async def test_a_silent_backend_is_found_out_and_its_requests_go_elsewhere():
    silent, good = FakeBackend(), FakeBackend()
    settings = {"policy": "round_robin", "first_byte_probe_secs": 0.05, "disable_health_check": True}
    async with running(silent, good, **settings) as fleet:
        silent.health_gate.clear()
        silent.may_answer.clear()
        for _ in range(4):
            assert await ask(fleet) == 200
        assert len(silent.received) == 1
        assert breaker(fleet, silent) is not BreakerState.CLOSED
        await until(lambda: fleet.leases() == 0)
        await silent.until(lambda: silent.abandoned == 1)


async def test_a_backend_that_was_only_held_up_answers_in_the_end_where_it_is_the_only_one():
    async with running(FakeBackend(), first_byte_probe_secs=0.05, retry_max_retries=100) as fleet:
        (stalled,) = fleet.backends
        stalled.health_gate.clear()
        stalled.may_answer.clear()
        asked = asyncio.create_task(ask(fleet))
        await stalled.until(lambda: stalled.abandoned >= 1)
        stalled.health_gate.set()
        stalled.may_answer.set()
        assert await asked == 200
        assert fleet.metric("smg_router_retries_total", reason="silent") >= 1


async def test_a_slow_backend_that_answers_its_probes_is_waited_for():
    async with running(FakeBackend(), first_byte_probe_secs=0.02, disable_health_check=True) as fleet:
        (slow,) = fleet.backends
        slow.may_answer.clear()
        slow.health_checks = 0

        async def open_after_some_probes() -> None:
            await until(lambda: slow.health_checks >= 5)
            slow.may_answer.set()

        opener = asyncio.create_task(open_after_some_probes())
        assert await ask(fleet) == 200
        await opener
        assert len(slow.received) == 1
