"""``--workers 2``: real data processes behind one port, in front of simulated engines."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import httpx
import pytest

from tests.e2e.processes import Process, Processes, free_port, wait_until

WORKERS = 2
START_SECONDS = 60
ENGINES = 3


@pytest.fixture(scope="module")
def engines(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Addresses of simulated engines whose answers take a tenth of a second and more."""
    found = processes.python("engines", "benchmarks.sim_backend", "--count", str(ENGINES), "--step-ms", "5", port=0)
    wait_until(lambda: found.log().count("simulated backend on") == ENGINES, START_SECONDS, "simulated engines")
    return re.findall(r"127\.0\.0\.1:\d+", found.log())


@pytest.fixture
def router(processes: Processes, engines: list[str]) -> Iterator[Process]:
    started = start(processes, engines)
    yield started
    started.stop()


def start(processes: Processes, hosts: list[str], *flags: str) -> Process:
    more = ("--workers", str(WORKERS), "--router-hosts", *hosts, *flags)
    found = processes.python("router-workers", "router.launch_router", *more, port=free_port())
    wait_until(lambda: "listening on" in found.log(), START_SECONDS, "all data processes")
    found.wait_ready("/readiness", START_SECONDS)
    return found


def children(process: Process) -> list[int]:
    """The data processes: those whose parent is the router."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, IndexError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == process.popen.pid:
                found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def get(router: Process, path: str) -> httpx.Response:
    return send(router, "GET", path)


def send(router: Process, method: str, path: str, body: dict | None = None) -> httpx.Response:
    """On a connection of its own, so that any of the processes may answer."""
    return httpx.request(method, router.url + path, json=body, timeout=20, trust_env=False)


def total(router: Process, name: str) -> float:
    """The sum of a metric's series."""
    text = get(router, "/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))


def loads(router: Process) -> list[int]:
    return [worker["load"] for worker in get(router, "/workers").json()["workers"]]


async def ask(session: aiohttp.ClientSession, number: int, tokens: int = 2, stream: bool = False) -> str:
    """A request on a connection of its own; the text of its answer."""
    body = {"messages": [{"role": "user", "content": f"story {number}"}], "max_tokens": tokens, "stream": stream}
    headers = {"X-Request-Id": f"request-{number}"}
    async with session.post("/v1/chat/completions", json=body, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        return text


async def ask_all(router: Process, count: int, tokens: int = 2, stream: bool = False) -> list[str | BaseException]:
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(router.url, connector=connector) as session:
        asked = (ask(session, number, tokens, stream) for number in range(count))
        return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.timeout(120)
async def test_a_data_process_that_dies_under_load_takes_nothing_else_with_it(router: Process) -> None:
    victim, other = children(router)
    load = asyncio.create_task(ask_all(router, 40, tokens=120, stream=True))
    await asyncio.to_thread(wait_until, lambda: sum(loads(router)) == 40, 20, "40 requests under way")
    os.kill(victim, signal.SIGKILL)
    answers = await load
    whole = [answer for answer in answers if isinstance(answer, str) and answer.endswith("data: [DONE]\n\n")]
    lost = [answer for answer in answers if isinstance(answer, aiohttp.ClientError)]
    assert len(whole) + len(lost) == 40
    assert whole  # of the other process
    assert lost
    wait_until(lambda: len(children(router)) == WORKERS and alive(other), 20, "the process to be started again")
    assert sum(loads(router)) == 0
    wait_until(lambda: set(explained(router, 40)) == {200, 404}, 20, "answers of all processes")
    assert all(isinstance(answer, str) for answer in await ask_all(router, 20))


def explained(router: Process, count: int) -> list[int]:
    """Of each request whether it can be explained: those of a process that died cannot."""
    return [get(router, f"/router/explain/request-{number}").status_code for number in range(count)]


async def test_any_process_tells_of_every_request_and_counts_them_all(router: Process) -> None:
    answers = await ask_all(router, 24)
    assert not [answer for answer in answers if not isinstance(answer, str)]
    for _ in range(4):
        assert total(router, "smg_http_requests_total") == 24
        assert total(router, "smg_worker_pool_size") == ENGINES
    assert explained(router, 24) == [200] * 24
    assert get(router, "/router/explain/nobody").status_code == 404


async def test_a_worker_added_at_one_process_serves_at_all(processes: Processes, engines: list[str]) -> None:
    router = start(processes, engines[:1])
    first = get(router, "/workers").json()["workers"][0]
    assert send(router, "POST", "/workers", {"url": engines[1]}).status_code == 202
    wait_until(
        lambda: all(get(router, "/readiness").json()["healthy_workers"] == 2 for _ in range(8)), 20, "two workers"
    )
    assert send(router, "DELETE", f"/workers/{first['id']}").status_code == 202
    wait_until(lambda: all(len(get(router, "/workers").json()["workers"]) == 1 for _ in range(8)), 20, "one worker")
    port = engines[1].rpartition(":")[2]
    answers = await ask_all(router, 16)
    assert all(isinstance(answer, str) and f'"sim-{port}-' in answer for answer in answers)
    assert router.stop() == 0


@pytest.mark.timeout(120)
def test_the_metrics_port_tells_metrics_of_all_and_nothing_else(processes: Processes, engines: list[str]) -> None:
    port = free_port()
    flags = ("--api-key", "secret", "--prometheus-host", "127.0.0.1", "--prometheus-port", str(port))
    router = start(processes, engines, *flags)
    try:
        told = {path: httpx.get(f"http://127.0.0.1:{port}{path}") for path in ("/metrics", "/workers", "/flush_cache")}
        assert [answer.status_code for answer in told.values()] == [200, 404, 404]
        assert "smg_worker_health" in told["/metrics"].text
    finally:
        router.stop()


async def test_sigterm_lets_all_processes_finish(processes: Processes, engines: list[str]) -> None:
    router = start(processes, engines)
    pids = children(router)
    load = asyncio.create_task(ask_all(router, 12, tokens=150, stream=True))
    await asyncio.to_thread(wait_until, lambda: sum(loads(router)) == 12, 20, "12 requests under way")
    router.popen.send_signal(signal.SIGTERM)
    answers = await load
    assert [answer for answer in answers if not (isinstance(answer, str) and answer.endswith("[DONE]\n\n"))] == []
    assert await asyncio.to_thread(router.popen.wait, 20) == 0
    assert not [pid for pid in pids if alive(pid)]


async def test_data_processes_end_with_their_owner(processes: Processes, engines: list[str]) -> None:
    router = start(processes, engines)
    pids = children(router)
    os.kill(router.popen.pid, signal.SIGKILL)
    router.popen.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids), 20, "the data processes to end")


def test_what_a_data_process_cannot_use_is_told_in_one_line(processes: Processes, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    flags = ("--workers", "2", "--router-hosts", "127.0.0.1:9", "--tls-cert-path", missing, "--tls-key-path", missing)
    router = processes.python("router-wrong", "router.launch_router", *flags, port=free_port())
    assert router.popen.wait(START_SECONDS) == 1
    assert "Traceback" not in router.log()
    assert missing in router.log().splitlines()[-1]


def test_a_data_process_whose_owner_never_speaks_ends() -> None:
    ours, theirs = socket.socketpair()
    loads = os.memfd_create("loads")
    command = [sys.executable, "-m", "router.processes.data", str(theirs.fileno()), str(loads)]
    process = subprocess.Popen(command, pass_fds=(theirs.fileno(), loads), stderr=subprocess.PIPE)
    theirs.close()
    ours.close()
    os.close(loads)
    _, said = process.communicate(timeout=START_SECONDS)
    assert (process.returncode, said) == (0, b"")
