"""``launch_router`` without hosts: its own two backends with the default model, as ``make serve`` runs them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.clients import openai_client
from tests.e2e.conftest import START_SECONDS
from tests.e2e.processes import Process, Processes, free_port, wait_until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def served(processes: Processes, tmp_path: Path) -> Iterator[Process]:
    port = free_port()
    argv = [sys.executable, "-m", "router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    found = processes.start("serve", argv, f"http://127.0.0.1:{port}", env={"TMPDIR": str(tmp_path)})
    found.wait_ready("/readiness", START_SECONDS)
    yield found
    found.stop()


def healthy(served: Process) -> list[str]:
    workers = httpx.get(f"{served.url}/workers", timeout=30, trust_env=False).json()["workers"]
    return [worker["url"] for worker in workers if worker["is_healthy"]]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=30, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.timeout(280)
def test_local_backends_are_kept_running_and_stopped(served: Process, tmp_path: Path) -> None:
    wait_until(lambda: f"{served.url}/v1/chat/completions" in served.log(), START_SECONDS, "the line to try")
    backends = healthy(served)
    assert len(backends) == 2  # at the first 200 of /readiness already

    os.kill(children(served.popen.pid)[0], signal.SIGKILL)
    with openai_client(served.url) as client:
        answer = client.chat.completions.create(model="default", messages=QUESTION, temperature=0, max_tokens=16)
    assert "Paris" in answer.choices[0].message.content
    wait_until(lambda: "restarting" in served.log(), 30, "the dead backend to be noticed")
    wait_until(lambda: all(is_up(url) for url in backends), START_SECONDS, "the dead backend to be back")

    assert served.stop(seconds=60) == 0
    assert [url for url in backends if is_up(url)] == []
    (logs,) = tmp_path.glob("warmlane-*")  # no sockets; the logs are kept because a backend had died
    assert f"the logs of the local backends are in {logs}" in served.log()
