"""A backend that fails before its first byte costs the client nothing while another one is well."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from router.fleet.worker import Health
from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend, Fault

BAD_BEFORE_FIRST_BYTE = [Fault.RESET, Fault.EMPTY, Fault.STATUS]


@pytest.mark.parametrize("fault", BAD_BEFORE_FIRST_BYTE)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_other_backend_answers(fault, stream):
    async with running(FakeBackend(fault=fault), FakeBackend(), policy="round_robin") as fleet:
        for _ in range(4):
            async with fleet.client.post("/v1/chat/completions", json=chat("hi", stream=stream)) as answer:
                assert answer.status == 200
                assert b"tok" in await answer.read()
        assert fleet.backends[0].received
        assert len(fleet.backends[1].received) == 4
        assert fleet.leases() == 0


async def test_a_backend_that_refuses_connections_is_passed_over_and_found_unhealthy():
    async with running(FakeBackend(), FakeBackend(), policy="round_robin", health_failure_threshold=1) as fleet:
        await fleet.backends[0].stop()
        for _ in range(2):
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200
        await until(lambda: len(fleet.router.registry.healthy()) == 1)


async def test_a_backend_that_comes_back_is_used_again():
    async with running(FakeBackend(), health_failure_threshold=1, health_success_threshold=1) as fleet:
        (worker,) = fleet.router.registry.all()
        await fleet.backends[0].stop()
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status in (502, 503)
        await until(lambda: worker.health is Health.UNHEALTHY)
        await fleet.backends[0].start()
        await until(lambda: worker.health is Health.HEALTHY)
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("status", [400, 404, 408, 422])
async def test_an_error_that_is_the_clients_own_is_relayed_and_not_repeated(status):
    async with running(*(FakeBackend(fault=Fault.STATUS, status=status) for _ in range(2))) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == status
            assert await answer.json() == {"error": "on purpose"}
        assert sum(len(backend.received) for backend in fleet.backends) == 1


async def test_when_all_fail_the_last_error_of_a_backend_is_relayed_with_its_headers():
    backends = [FakeBackend(fault=Fault.STATUS, status=503, status_headers={"Retry-After": "7"}) for _ in range(2)]
    async with running(*backends, retry_max_retries=2) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "7"
            assert await answer.json() == {"error": "on purpose"}
        assert [len(backend.received) for backend in backends] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "attempts"), [({"retry_max_retries": 3}, 3), ({"disable_retries": True}, 1), ({}, 5)]
)
async def test_the_number_of_attempts_is_the_flags(settings, attempts):
    async with running(FakeBackend(fault=Fault.STATUS, status=503), **settings) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 503
        assert len(fleet.backends[0].received) == attempts


async def test_a_500_is_not_repeated_on_the_same_backend():
    async with running(FakeBackend(fault=Fault.STATUS, status=500)) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 500
        assert len(fleet.backends[0].received) == 1


async def test_a_request_with_unknown_effects_is_not_sent_twice():
    async with running(FakeBackend(fault=Fault.RESET), FakeBackend(fault=Fault.RESET)) as fleet:
        async with fleet.client.post("/update_weights", json={}) as answer:
            assert answer.status == 502
        assert sum(len(backend.received) for backend in fleet.backends) == 1


async def test_unreachable_backends_give_502_without_their_address():
    async with running(FakeBackend(fault=Fault.RESET), retry_max_retries=2) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 502
            error = (await answer.json())["error"]
        assert error["code"] == "backend_unreachable"
        assert str(fleet.backends[0].port) not in str(error)


async def test_a_silent_backend_gives_504_after_the_first_byte_timeout():
    async with running(FakeBackend(fault=Fault.HANG), first_byte_timeout_secs=0.05) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 504
            assert (await answer.json())["error"]["code"] == "backend_timeout"
        assert fleet.leases() == 0


async def test_a_silent_backend_is_left_for_another_after_the_first_byte_timeout():
    backends = FakeBackend(fault=Fault.HANG), FakeBackend()
    async with running(*backends, first_byte_timeout_secs=0.05, policy="round_robin") as fleet:
        for _ in range(2):
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200


async def test_the_total_timeout_ends_a_request_without_another_attempt():
    backends = FakeBackend(fault=Fault.HANG), FakeBackend(fault=Fault.HANG)
    async with running(*backends, request_timeout_secs=0.1) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 504
        assert sum(len(backend.received) for backend in backends) == 1


async def test_no_healthy_backend_gives_503():
    async with running(FakeBackend(healthy=False), ready=False) as fleet:
        answer = await fleet.client.post("/v1/chat/completions", json=chat("hi"))
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert (await answer.json())["error"]["code"] == "no_healthy_backend"


@pytest.mark.parametrize("settings", [{}, {"stream_idle_timeout_secs": 0.05}])
async def test_a_cut_after_the_first_byte_is_seen_as_a_cut(settings):
    """Nothing is repeated, and the client cannot take the half answer for a whole one."""
    async with running(FakeBackend(), FakeBackend(), **settings) as fleet:
        for backend in fleet.backends:
            if settings:
                backend.may_go_on.clear()
            else:
                backend.fault = Fault.CUT
        async with fleet.client.post("/v1/chat/completions", json=chat("hi", stream=True)) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        assert sum(len(backend.received) for backend in fleet.backends) == 1
        await until(lambda: fleet.leases() == 0)
        cut = [
            fleet.metric("warmlane_worker_attempts_total", worker=backend.url, outcome="cut")
            for backend in fleet.backends
        ]
        assert sum(cut) == 1


async def test_a_kept_connection_that_the_backend_closed_is_no_failed_attempt():
    async with running(FakeBackend(), disable_retries=True, disable_health_check=True) as fleet:
        (backend,) = fleet.backends
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 200
            await answer.read()
        backend.reset_next = True
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 200
        assert len(backend.received) == 3


async def test_slow_health_of_one_worker_delays_no_other():
    slow, well = FakeBackend(), FakeBackend()
    slow.health_gate.clear()
    async with running(slow, well, ready=False) as fleet:
        await until(lambda: len(fleet.router.registry.healthy()) == 1)
        assert fleet.router.registry.healthy()[0].url == well.url
        async with asyncio.timeout(5), fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 200
