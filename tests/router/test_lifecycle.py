"""Probes, metrics ports, and the way from SIGTERM to the end."""

from __future__ import annotations

import asyncio

import pytest

from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend


async def test_probes_tell_alive_from_ready():
    async with running(FakeBackend(healthy=False), ready=False) as fleet:
        for path, status in [("/liveness", 200), ("/readiness", 503), ("/health", 503)]:
            async with fleet.client.get(path) as answer:
                assert answer.status == status
        fleet.backends[0].healthy = True
        await until(lambda: fleet.router.registry.healthy())
        async with fleet.client.get("/readiness") as answer:
            assert answer.status == 200


async def test_readiness_waits_for_backends_of_the_routers_own():
    async with running(FakeBackend()) as fleet:
        fleet.router.inflight.starting = True
        async with fleet.client.get("/readiness") as answer:
            assert (answer.status, (await answer.json())["status"]) == (503, "starting")
        fleet.router.inflight.starting = False
        async with fleet.client.get("/readiness") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "ready")


async def test_draining_finishes_what_is_under_way_and_takes_nothing_new():
    async with running(FakeBackend()) as fleet:
        (backend,) = fleet.backends
        backend.may_go_on.clear()
        under_way = await fleet.client.post("/v1/chat/completions", json=chat("hi", stream=True))
        draining = asyncio.create_task(fleet.router.drain())
        await until(lambda: fleet.router.inflight.refusing)
        async with fleet.client.get("/readiness") as answer:
            assert answer.status == 503
        async with fleet.client.get("/liveness") as answer:
            assert answer.status == 200
        async with fleet.client.post("/v1/chat/completions", json=chat("new")) as answer:
            assert answer.status == 503
            assert answer.headers["Connection"] == "close"
        assert not draining.done()
        backend.may_go_on.set()
        assert (await under_way.read()).endswith(b"[DONE]\n\n")
        await draining


async def test_the_grace_period_bounds_the_wait():
    async with running(FakeBackend(), shutdown_grace_period_secs=0.05) as fleet:
        fleet.backends[0].may_answer.clear()
        asking = asyncio.create_task(fleet.client.post("/v1/chat/completions", json=chat("hi")))
        await fleet.backends[0].until(lambda: fleet.backends[0].running == 1)
        await fleet.router.drain()
        assert fleet.router.inflight.count == 1
        asking.cancel()


async def test_while_settling_readiness_says_no_and_requests_are_served():
    async with running(FakeBackend(), drain_settle_secs=60) as fleet:
        draining = asyncio.create_task(fleet.router.drain())
        await until(lambda: not fleet.router.inflight.ready)
        async with fleet.client.get("/readiness") as answer:
            assert answer.status == 503
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 200
        draining.cancel()


async def test_metrics_are_also_on_their_own_port():
    async with running(FakeBackend(), prometheus_port=0, prometheus_host="127.0.0.1") as fleet:
        async with fleet.client.get("/metrics") as answer:
            here = await answer.text()
        async with fleet.client.get(f"http://127.0.0.1:{fleet.router.metrics_port}/metrics") as answer:
            there = await answer.text()
        assert "smg_worker_health" in here
        assert "smg_worker_health" in there
        async with fleet.client.get(f"http://127.0.0.1:{fleet.router.metrics_port}/workers") as answer:
            assert answer.status == 404


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open():
    async with running() as fleet:
        with pytest.raises(OSError, match="Address already in use"):
            async with running(port=fleet.router.port):
                pass


async def test_label_values_are_bounded():
    """Models, paths and methods that clients make up fold into one value."""
    async with running(FakeBackend(models=()), prometheus_duration_buckets=[1]) as fleet:
        for index in range(20):
            body = {**chat("hi"), "model": f"made-up-{index}"}
            async with fleet.client.post("/v1/chat/completions", json=body) as answer:
                assert answer.status == 200
            async with fleet.client.request(f"MADEUP{index}", f"/made-up-{index}") as answer:
                await answer.read()
        async with fleet.client.get("/metrics") as answer:
            text = await answer.text()
        assert "made-up" not in text
        assert "MADEUP" not in text
        assert (
            fleet.metric("smg_router_requests_total", model="other", endpoint="/v1/chat/completions", streaming="false")
            == 20
        )


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"messages": [NaN]}'])
async def test_malformed_json_gets_a_clear_400_and_reaches_no_backend(body):
    async with running(FakeBackend()) as fleet:
        answer = await fleet.client.post("/v1/chat/completions", data=body)
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "invalid_json"
        assert not fleet.backends[0].received


@pytest.mark.parametrize(
    "body",
    [
        {"messages": 5},
        {"messages": [None, 7, {"role": 3, "content": {"a": []}}]},
        {"messages": [], "tools": "x", "stream": "yes", "chat_template_kwargs": []},
        {"model": ["x"], "prompt": {"a": 1}},
        {"input_ids": [1, "a", 2.5]},
        {"input": [{"deep": [[[]]]}], "instructions": 4},
        {"system": [{"type": "text", "text": 5}], "messages": [{}]},
    ],
)
async def test_odd_types_are_left_to_the_backend(body):
    async with running(FakeBackend()) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200
        assert len(fleet.backends[0].received) == 1


async def test_a_defect_of_the_router_is_a_500_without_a_traceback(monkeypatch):
    async with running(FakeBackend()) as fleet:

        def choose(*_arguments):
            raise RuntimeError("a secret detail")

        monkeypatch.setattr(fleet.router.policy, "choose", choose)
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 500
            assert "secret" not in await answer.text()
        assert fleet.leases() == 0
