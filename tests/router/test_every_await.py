"""A request that is cancelled at any of its awaits leaves no lease, no place, no connection and no task behind."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from router.gateway import Gateway
from router.http.message import Request
from router.http.response import ResponseWriter
from router.http.server import Turn
from tests.router.conftest import Fleet, chat, running, until
from tests.router.fake_backend import FakeBackend, Fault

SCENARIOS: dict[str, tuple[list[Fault | None], dict[str, Any]]] = {
    "answers": ([None], {"max_concurrent_requests": 9}),
    "retries": ([Fault.STATUS, Fault.RESET, None], {"retry_initial_backoff_ms": 1, "policy": "round_robin"}),
    "every worker fails": ([Fault.STATUS], {"retry_max_retries": 3, "retry_initial_backoff_ms": 1}),
    "a silent worker": ([Fault.HANG, None], {"first_byte_timeout_secs": 0.02, "policy": "round_robin"}),
    "limits": ([None, None], {"max_concurrent_requests": 1, "max_concurrent_requests_per_worker": 1}),
    "a cut that goes on": ([Fault.CUT, None], {"resume_streams": True, "policy": "round_robin"}),
}


@dataclass
class Cut:
    """A request is cancelled at its await number ``at``; ``seen``: the numbers of those that it came to."""

    at: int = 0
    seen: list[int] = field(default_factory=list)


class CutTurn:
    """A turn whose coroutine is cancelled at one of its awaits. Work in callbacks is left alone."""

    def __init__(self, turn: Turn, cut: Cut) -> None:
        self._turn = turn
        self._cut = cut
        self.ride, self.over, self.failed = turn.ride, turn.over, turn.failed

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._turn.run(self._cut_off(work))

    async def _cut_off(self, work: Coroutine[Any, Any, None]) -> None:
        await cut_at(work, self._cut.at, self._cut.seen)


@types.coroutine
def cut_at(coroutine: Coroutine[Any, Any, None], last: int, seen: list[int]) -> Generator[Any, Any, None]:
    """Run ``coroutine`` and cancel its task at its await number ``last``; ``seen`` gets the number of each."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    step, resume = 0, lambda: coroutine.send(None)
    while True:
        try:
            waited_for = resume()
        except StopIteration:
            return
        seen.append(step)
        if step == last and task is not None:
            loop.call_soon(task.cancel)
        step += 1
        try:
            sent = yield waited_for
        except BaseException as error:  # handed to whom it is meant for
            resume = lambda error=error: coroutine.throw(error)  # noqa: E731
        else:
            resume = lambda sent=sent: coroutine.send(sent)  # noqa: E731


async def ask(client: aiohttp.ClientSession, stream: bool) -> None:
    try:
        async with client.post("/v1/chat/completions", json=chat("hello " * 20, stream=stream)) as answer:
            await answer.read()
    except aiohttp.ClientError:
        return  # it was cut


def connections(fleet: Fleet) -> int:
    """Requests under way at the backends."""
    return sum(backend.running for backend in fleet.backends)


def router_tasks() -> int:
    """Tasks that run the router's code."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    files = [code.co_filename for one in coroutines if (code := getattr(one, "cr_code", None)) is not None]
    return sum("/router/" in file and "/tests/" not in file for file in files)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, scenario: str, stream: bool) -> None:
    faults, settings = SCENARIOS[scenario]
    backends = [FakeBackend(fault=fault, status=500, token_seconds=0.001) for fault in faults]
    serve = Gateway.serve
    cut = Cut()

    def cut_serve(self: Gateway, request: Request, client: ResponseWriter, turn: Turn) -> None:
        victim = request.headers.get("x-request-id") == "victim"
        serve(self, request, client, CutTurn(turn, cut) if victim else turn)

    monkeypatch.setattr(Gateway, "serve", cut_serve)
    usual = {"disable_health_check": True, "first_byte_probe_secs": 0, "disable_circuit_breaker": True}
    async with running(*backends, **usual, **settings) as fleet:
        url, tasks = f"http://127.0.0.1:{fleet.router.port}", router_tasks()
        missed = 0  # rounds in a row in which the victim was over before
        while missed < 3:
            cut.seen = []
            async with (
                aiohttp.ClientSession(url) as client,
                aiohttp.ClientSession(url, headers={"X-Request-Id": "victim"}) as victim,
            ):
                await asyncio.gather(ask(client, stream), ask(victim, stream), ask(client, stream))
            await until(lambda: not fleet.router.inflight.count and not connections(fleet))
            assert fleet.leases() == 0
            assert fleet.router.protection.admission.running == 0
            assert fleet.router.protection.admission.waiting == 0
            await until(lambda: router_tasks() <= tasks)
            missed = 0 if cut.at in cut.seen else missed + 1
            cut.at += 1
        assert cut.at > 3  # it was cut at least once
