"""A backend that dies under load, and a router that is told to end while it streams."""

from __future__ import annotations

import signal

import httpx
import pytest

from tests.e2e.clients import Load, openai_client
from tests.e2e.conftest import BACKEND_FLAGS, START_SECONDS
from tests.e2e.processes import Process, Processes, free_port, wait_until


def start_router(processes: Processes, name: str, hosts: list[Process], *flags: str) -> Process:
    addresses = [host.url.removeprefix("http://") for host in hosts]
    found = processes.python(name, "router.launch_router", *flags, "--router-hosts", *addresses, port=free_port())
    found.wait_ready("/readiness", START_SECONDS)
    return found


def running(backend: Process) -> int:
    rows = httpx.get(f"{backend.url}/get_load", timeout=30, trust_env=False).json()
    return sum(row["num_reqs"] for row in rows)


@pytest.mark.timeout(280)
def test_no_client_sees_an_error_before_its_first_token_when_a_backend_dies(
    processes: Processes, backends: list[Process]
) -> None:
    victim = processes.python("victim", "backend.launch_server", *BACKEND_FLAGS, port=free_port())
    victim.wait_ready("/health", START_SECONDS)
    router = start_router(processes, "router-failover", [victim, backends[0]], "--policy", "round_robin")
    long_prompts = [f"Chapter {number}. " + "It was a dark and stormy night. " * 120 for number in range(2)]
    waiting = Load(router.url, long_prompts, requests_each=1)  # one to each backend, seconds before a first token
    others = Load(router.url, [f"Story {number}:" for number in range(3)], requests_each=4)
    waiting.start()
    wait_until(lambda: running(victim) > 0, 60, "a request on the backend that will die")
    others.start()
    victim.kill()
    assert [stream.error for stream in waiting.finish()] == ["", ""]
    streams = others.finish()
    router.stop()
    assert len(streams) == 12
    assert [stream for stream in streams if stream.error and stream.tokens == 0] == []
    assert sum(not stream.error for stream in streams) >= 9  # at most the three that were under way are cut


def test_a_router_that_is_told_to_end_finishes_its_streams(processes: Processes, backends: list[Process]) -> None:
    router = start_router(processes, "router-drain", backends)
    with openai_client(router.url) as client:
        model = client.models.list().data[0].id
        events = client.completions.create(
            model=model, prompt="Once upon a time", max_tokens=48, stream=True, extra_body={"ignore_eos": True}
        )
        first = next(iter(events))
        router.popen.send_signal(signal.SIGTERM)
        rest = list(events)
    assert first.choices[0].finish_reason is None
    assert rest[-1].choices[0].finish_reason == "length"
    assert router.popen.wait(60) == 0
