"""Every fault of a backend, and what a client sees of it while another backend is well: nothing."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from router.fleet.worker import Health
from tests.router.conftest import until
from tests.router.proxied import Fault, proxied, streamed

BEFORE_FIRST_BYTE = [fault for fault in Fault if fault not in (Fault.CUT, Fault.TRUNCATE, Fault.STUCK)]
IN_MID_STREAM = [Fault.CUT, Fault.TRUNCATE]


@pytest.mark.parametrize("fault", BEFORE_FIRST_BYTE)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_before_the_first_byte_is_not_seen(fault, stream):
    async with proxied() as fleet:
        fleet.proxies[0].slow_seconds = 0.3
        await fleet.proxies[0].become(fault)
        assert await asyncio.gather(*(fleet.ask(f"q{n}", stream=stream) for n in range(8))) == [200] * 8
        await fleet.settled()
        await until(lambda: fleet.proxies[0].under_way == 0 or fault in (Fault.HANG, Fault.SLOW))


async def test_an_engine_that_stands_still_behind_a_process_that_answers_is_found_out():
    """Only once the worker's speed is known: then so long a silence is not a long prompt."""
    async with proxied() as fleet:
        for number in range(12):
            assert await fleet.ask(f"{number} " + "word " * 200) == 200
        await fleet.proxies[0].become(Fault.STUCK)
        assert await asyncio.gather(*(fleet.ask(f"q{n}") for n in range(8))) == [200] * 8
        assert fleet.metric("smg_router_retries_total", reason="silent") >= 1


@pytest.mark.parametrize("fault", IN_MID_STREAM)
async def test_with_resumed_streams_a_cut_is_not_seen(fault):
    async with proxied(resume_streams=True) as fleet:
        await fleet.proxies[0].become(fault)
        assert await asyncio.gather(*(fleet.ask(f"q{n}") for n in range(8))) == [200] * 8
        assert fleet.metric("warmlane_streams_resumed_total") >= 3
        await fleet.settled()


@pytest.mark.parametrize("fault", IN_MID_STREAM)
async def test_half_of_an_answer_that_is_no_stream_is_never_sent(fault):
    async with proxied() as fleet:
        fleet.proxies[0].cut_after = 50
        await fleet.proxies[0].become(fault)
        assert await asyncio.gather(*(fleet.ask(f"q{n}", stream=False) for n in range(6))) == [200] * 6


@pytest.mark.parametrize("fault", IN_MID_STREAM)
async def test_without_them_a_cut_is_seen_as_a_cut(fault):
    async with proxied(1) as fleet:
        await fleet.proxies[0].become(fault)
        with pytest.raises(aiohttp.ClientPayloadError):
            await fleet.ask()
        await fleet.settled()


@pytest.mark.parametrize(
    ("fields", "reason"), [({"seed": 7}, "seeded"), ({"n": 2}, "several answers"), ({"logprobs": True}, "logprobs")]
)
async def test_what_must_not_be_continued_is_cut_and_the_log_says_why(fields, reason, caplog):
    caplog.set_level("INFO", "router.continuation")
    async with proxied(resume_streams=True) as fleet:
        for proxy in fleet.proxies:
            await proxy.become(Fault.CUT)
        with pytest.raises(aiohttp.ClientPayloadError):
            await fleet.ask(**fields)
        assert any(reason in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"text": "Tell me\n", "sampling_params": {"max_new_tokens": 9}}),
        ("/v1/completions", {"prompt": "Tell me\n", "max_tokens": 9, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "stream_options": {"include_usage": True}
        }),
    ],
)  # fmt: skip
async def test_every_dialect_goes_on_as_if_nothing_had_happened(path, body):
    async def events(fleet) -> list[dict]:
        async with fleet.client.post(path, json={**body, "stream": True}) as answer:
            assert answer.status == 200
            return [json.loads(part[6:]) for part in (await answer.read()).split(b"\n\n")[:-2]]

    def comparable(seen: list[dict]) -> list[dict]:
        for event in seen:
            event.pop("id", None)
            (event.get("meta_info") or {}).pop("id", None)
            (event.get("usage") or {}).pop("prompt_tokens_details", None)
            (event.get("meta_info") or {}).pop("cached_tokens", None)
        return seen

    async with proxied(resume_streams=True) as fleet:
        undisturbed = comparable(await events(fleet))
        for proxy in fleet.proxies:
            proxy.cut_after = 700
        await fleet.proxies[1].become(Fault.CUT)
        assert comparable(await events(fleet)) == undisturbed
        assert fleet.metric("warmlane_streams_resumed_total") == 1


async def test_when_nobody_can_go_on_the_cut_is_seen(caplog):
    async with proxied(resume_streams=True, retry_max_retries=3) as fleet:
        for proxy in fleet.proxies:
            await proxy.become(Fault.CUT)
        with pytest.raises(aiohttp.ClientPayloadError):
            await fleet.ask(tokens=40)
        await fleet.settled()
    assert any("its attempts or its time are over" in record.message for record in caplog.records)


async def test_without_retry_budget_a_cut_stands_and_is_counted(caplog, monkeypatch):
    async with proxied(resume_streams=True) as fleet:
        monkeypatch.setattr(fleet.router.protection.budget, "take", lambda _now: False)
        for proxy in fleet.proxies:
            await proxy.become(Fault.CUT)
        with pytest.raises(aiohttp.ClientPayloadError):
            await fleet.ask(tokens=40)
        assert fleet.metric("warmlane_retries_denied_total") == 1
    assert any("the retry budget is spent" in record.message for record in caplog.records)


async def test_a_backend_that_is_well_again_is_used_again():
    async with proxied(health_success_threshold=1) as fleet:
        sick = fleet.proxies[0]
        await sick.become(Fault.REFUSE)
        for _ in range(6):
            assert await fleet.ask() == 200
        await until(lambda: Health.UNHEALTHY in [worker.health for worker in fleet.router.registry.all()])
        await sick.become(None)
        before = fleet.metric("warmlane_worker_attempts_total", worker=f"http://127.0.0.1:{sick.port}", outcome="ok")

        async def used() -> bool:
            assert await fleet.ask() == 200
            name = "warmlane_worker_attempts_total"
            return fleet.metric(name, worker=f"http://127.0.0.1:{sick.port}", outcome="ok") > before

        async with asyncio.timeout(20):
            while not await used():  # noqa: ASYNC110 - each look is a request
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.SLOW, None])
async def test_a_client_that_leaves_takes_its_connection_to_the_backend_along(fault):
    async with proxied(1, first_byte_probe_secs=0, disable_health_check=True) as fleet:
        proxy = fleet.proxies[0]
        await proxy.become(fault)
        request = asyncio.create_task(fleet.ask(tokens=2000))
        await until(lambda: proxy.under_way >= 1)
        request.cancel()
        await until(lambda: proxy.under_way == 0 or fault is Fault.SLOW)
        await fleet.settled()


async def test_a_stream_is_of_one_piece_however_often_it_is_cut():
    async with proxied(3, resume_streams=True) as fleet:
        for proxy in fleet.proxies[:2]:
            await proxy.become(Fault.CUT)
        body = {"messages": [{"role": "user", "content": "long"}], "max_tokens": 30, "stream": True}
        async with fleet.client.post("/v1/chat/completions", json=body) as answer:
            assert len(streamed(await answer.read()).split()) == 30
