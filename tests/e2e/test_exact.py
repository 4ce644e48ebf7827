"""Real backends tell the router what they hold: exact predictions, also after a flush and a restart."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import START_SECONDS
from tests.e2e.processes import Process, Processes, free_port, wait_until

SYSTEM = "You are a careful assistant. Answer in one short sentence and never invent facts. " * 8
BODY = {
    "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 4,
}


@pytest.fixture
def served(processes: Processes, tmp_path: Path) -> Iterator[Process]:
    port = free_port()
    argv = [sys.executable, "-m", "router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    found = processes.start("serve", argv, f"http://127.0.0.1:{port}", env={"TMPDIR": str(tmp_path)})
    found.wait_ready("/readiness", START_SECONDS)
    yield found
    found.stop()


def ask(served: Process, method: str, path: str, **more: Any) -> httpx.Response:
    return httpx.request(method, f"{served.url}{path}", timeout=60, trust_env=False, **more)


def states(served: Process) -> list[tuple[str, str]]:
    workers = ask(served, "GET", "/workers").json()["workers"]
    return [(worker["kv_events"], worker["token_parity"]) for worker in workers if worker["is_healthy"]]


def predicted(served: Process) -> int:
    return ask(served, "POST", "/router/simulate", json=BODY).json()["predicted_cached_tokens"]


@pytest.mark.timeout(280)
def test_the_router_knows_what_its_backends_hold(served: Process) -> None:
    wait_until(lambda: states(served) == [("exact", "ok")] * 2, START_SECONDS, "both caches to be known")
    first = ask(served, "POST", "/v1/chat/completions", json=BODY, headers={"x-warmlane-explain": "1"})
    assert first.headers["x-warmlane-cached-tokens"] == "0"
    assert "reason=cold" in first.headers["x-warmlane-decision"]
    wait_until(lambda: predicted(served) > 100, 30, "the events of the first prompt")
    expected = predicted(served)

    second = ask(served, "POST", "/v1/chat/completions", json=BODY, headers={"x-request-id": "second"})
    assert int(second.headers["x-warmlane-cached-tokens"]) == expected  # to the token
    [attempt] = ask(served, "GET", "/router/explain/second").json()["attempts"]
    assert attempt["predicted_cached_tokens"] == attempt["actual"]["cached_tokens"] == expected
    holder = attempt["worker"]

    httpx.post(f"{holder}/flush_cache", timeout=30, trust_env=False)  # not through the router: it is told by events
    wait_until(lambda: predicted(served) == 0, 30, "the flush to be known")

    ask(served, "POST", "/v1/chat/completions", json=BODY)
    wait_until(lambda: predicted(served) > 100, 30, "the events of the next prompt")
    for child in Path(f"/proc/{served.popen.pid}/task/{served.popen.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    wait_until(lambda: len(states(served)) < 2, START_SECONDS, "the dead backends to be noticed")
    wait_until(lambda: states(served) == [("exact", "ok")] * 2, START_SECONDS, "both caches to be known again")
    assert predicted(served) == 0
