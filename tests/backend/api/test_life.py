"""Pause and continue, and what becomes of requests that wait or run too long."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from backend.frontend.timeouts import Timeouts
from tests.backend.fake_scheduler import SILENT_TOKEN, STUCK_TOKEN


def ask(backend, **more):
    body = {"input_ids": [5, 6], "sampling_params": {"max_new_tokens": 3}} | more
    return asyncio.create_task(backend.http.post("/generate", json=body))


@pytest.mark.parametrize("mode", ["in_place", "retract"])
async def test_paused_requests_stand_still_and_new_ones_wait(backend, mode):
    answer = await backend.http.post("/pause_generation", json={"mode": mode})
    assert answer.json() == {"message": "Generation paused successfully.", "status": "ok"}
    assert backend.engine.stats.paused
    waiting = ask(backend)
    assert (await backend.http.get("/health")).status_code == 200
    refused = await backend.http.get("/health_generate")
    assert (refused.status_code, "paused" in refused.text) == (503, True)
    assert not waiting.done()
    assert not backend.engine.received
    answer = await backend.http.post("/continue_generation", json={})
    assert answer.json()["status"] == "ok"
    assert (await waiting).json()["meta_info"]["completion_tokens"] == 3


async def test_a_pause_that_aborts_ends_requests_with_what_they_have(backend):
    stuck = ask(backend, input_ids=[5, STUCK_TOKEN])
    async with asyncio.timeout(10):
        await backend.frontend.produced()
    await backend.http.post("/pause_generation", json={})
    meta = (await stuck).json()["meta_info"]
    assert (meta["finish_reason"]["type"], meta["completion_tokens"]) == ("abort", 1)
    waiting = ask(backend)
    assert (await backend.http.post("/flush_cache?timeout=5")).status_code == 200
    assert not waiting.done()
    await backend.http.post("/continue_generation")
    assert (await waiting).status_code == 200


async def test_another_mode_is_a_400(backend):
    answer = await backend.http.post("/pause_generation", json={"mode": "later"})
    assert answer.status_code == 400
    assert "mode" in answer.text


async def test_continuing_without_a_pause_does_nothing(backend):
    assert (await backend.http.post("/continue_generation")).status_code == 200


async def enforced(backend, timeouts, work):
    """The result of ``work`` while ``timeouts`` are kept."""
    enforcing = asyncio.create_task(backend.frontend.enforce(timeouts))
    try:
        async with asyncio.timeout(10):
            return await work
    finally:
        enforcing.cancel()


async def test_a_request_that_runs_too_long_is_a_503(backend):
    work = ask(backend, input_ids=[5, SILENT_TOKEN])
    answer = await enforced(backend, Timeouts(running=0.05), work)
    assert answer.status_code == 503
    assert "Request running timeout reached" in answer.json()["error"]["message"]
    assert answer.headers["Retry-After"]


async def test_in_a_stream_it_is_an_event(backend):
    work = ask(backend, input_ids=[5, STUCK_TOKEN], stream=True)
    answer = await enforced(backend, Timeouts(running=0.05), work)
    assert answer.status_code == 200
    assert '"code":503' in answer.text
    assert "Request running timeout reached" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_request_that_waits_too_long_is_a_503_and_the_running_one_goes_on(backend):
    backend.engine.slots = 1
    first = ask(backend, input_ids=[5, STUCK_TOKEN], stream=True)
    async with asyncio.timeout(10):
        await backend.frontend.produced()
    second = ask(backend)
    answer = await enforced(backend, Timeouts(waiting=0.05), second)
    assert answer.status_code == 503
    assert "Request waiting timeout reached" in answer.json()["error"]["message"]
    assert not first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_nothing_is_limited_by_default(backend):
    assert Timeouts().interval is None
    await backend.frontend.enforce(Timeouts())  # returns at once


def test_flags_come_before_sglangs_variables():
    from backend.config import ServerArgs

    environ = {"SGLANG_REQ_WAITING_TIMEOUT": "-1", "SGLANG_REQ_RUNNING_TIMEOUT": "7.5"}
    assert Timeouts.of(ServerArgs(), environ) == Timeouts(0.0, 7.5)
    assert Timeouts.of(ServerArgs(req_running_timeout=2.0, req_waiting_timeout=1.0), environ) == Timeouts(1.0, 2.0)
    with pytest.raises(ValueError, match="SGLANG_REQ_WAITING_TIMEOUT must be a number of seconds, got 'soon'"):
        Timeouts.of(ServerArgs(), {"SGLANG_REQ_WAITING_TIMEOUT": "soon"})


async def test_a_lost_scheduler_frees_those_who_wait_for_a_pause(backend):
    from backend.frontend.errors import RequestError

    await backend.http.post("/pause_generation", json={"mode": "in_place"})
    waiting = ask(backend)
    assert (await backend.http.get("/health")).status_code == 200
    backend.frontend.fail(RequestError("gone", 503))
    answer: httpx.Response = await waiting
    assert (answer.status_code, "gone" in answer.text) == (503, True)
    backend.engine.stats.paused = False


async def test_a_lost_scheduler_is_told_to_those_whose_grammar_is_being_checked(backend, monkeypatch):
    """The checker outlives the scheduler: nobody's check is cancelled with it."""
    from backend.frontend.errors import RequestError
    from backend.grammar import GrammarChecker

    begun, go_on = asyncio.Event(), asyncio.Event()
    check = GrammarChecker.check

    async def slow(self, spec):
        begun.set()
        await go_on.wait()
        await check(self, spec)

    monkeypatch.setattr(GrammarChecker, "check", slow)
    waiting = ask(backend, sampling_params={"max_new_tokens": 3, "regex": "[ab]+"})
    await begun.wait()
    backend.frontend.fail(RequestError("gone", 503))
    backend.frontend.close()
    go_on.set()
    answer: httpx.Response = await waiting
    assert (answer.status_code, "gone" in answer.text) == (503, True)
