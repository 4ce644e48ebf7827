"""Backends of the router's own: started, watched, restarted, and gone with the router."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from router import local
from router.fleet.worker import WorkerSpec
from router.local import LocalBackendError, LocalBackends, free_ports
from tests.router.conftest import chat, running, until

FAKE = [sys.executable, "-m", "tests.router.fake_backend"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")


def backends(tmp_path: Path, command: list[str] = FAKE, count: int = 2) -> LocalBackends:
    return LocalBackends(command, ["--model-path", "x"], count, tmp_path)


async def test_they_serve_and_end_with_the_router(tmp_path):
    async with running() as fleet:
        own = backends(tmp_path)
        await own.start()
        try:
            for url in own.urls:
                fleet.router.registry.add(WorkerSpec(url=url))
            await until(lambda: len(fleet.router.registry.healthy()) == 2)
            own.settled()
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200
        finally:
            await own.stop()
    for url in own.urls:
        assert not await listens(url)


async def test_one_that_dies_is_restarted_on_its_port(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "BACKOFF_SECONDS", (0.01,))
    own = backends(tmp_path, count=1)
    await own.start()
    try:
        await comes_up(own.urls[0])
        own.settled()
        (first,) = own.processes
        os.kill(first, signal.SIGKILL)
        await until(lambda: own.processes and own.processes != [first])
        await comes_up(own.urls[0])
    finally:
        await own.stop()


async def test_one_that_dies_between_two_checks_is_known_to_start_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "BACKOFF_SECONDS", (0.5,))
    async with running(health_check_interval_secs=3600) as fleet:
        own = backends(tmp_path, count=1)
        own.on_end = fleet.router.backend_ended
        await own.start()
        try:
            fleet.router.registry.add(WorkerSpec(url=own.urls[0]))
            await until(lambda: fleet.router.registry.healthy())
            own.settled()
            os.kill(own.processes[0], signal.SIGKILL)
            await until(lambda: fleet.metric("warmlane_worker_restarts_total") == 1)
        finally:
            await own.stop()


async def test_one_that_dies_before_it_was_ready_stops_the_start_with_its_last_words(tmp_path):
    own = backends(tmp_path, [sys.executable, "-c", "import sys; print('no such model'); sys.exit(2)"])
    failed = await own.start()
    with pytest.raises(LocalBackendError, match=r"(?s)status 2 .* no such model"):
        await failed
    await own.stop()


async def test_a_start_error_is_told_in_the_backends_own_line_and_nothing_is_restarted(monkeypatch):
    monkeypatch.setattr(local, "BACKOFF_SECONDS", (0.0,))
    said = "import sys; sys.stderr.write('noise\\nlaunch_server: error: no such model\\n'); sys.exit(1)"
    own = LocalBackends([sys.executable, "-c", said], [], count=2)
    failed = await own.start()
    with pytest.raises(LocalBackendError, match=r"^local backend [01] cannot start: no such model; logs: /") as caught:
        await failed
    await own.stop()
    folder = own.log_paths[0].parent
    assert str(folder) in str(caught.value)
    logs = [path.read_text() for path in own.log_paths]
    assert max(text.count("noise") for text in logs) == 1  # a second start would have said it again
    shutil.rmtree(folder)


async def test_logs_are_removed_at_a_clean_end_and_kept_after_a_death(monkeypatch, caplog):
    monkeypatch.setattr(local, "BACKOFF_SECONDS", (60.0,))
    for kill in (False, True):
        own = LocalBackends(FAKE, [], count=1)
        await own.start()
        await comes_up(own.urls[0])
        own.settled()
        folder = own.log_paths[0].parent
        if kill:
            os.kill(own.processes[0], signal.SIGKILL)
            await until(lambda: "restarting" in caplog.text)
        await own.stop()
        assert folder.exists() is kill
        assert (str(folder) in caplog.text) is kill
    shutil.rmtree(folder)


async def test_cores_are_shared_out(tmp_path):
    echo = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]
    own = backends(tmp_path, echo, count=1)
    failed = await own.start()
    with pytest.raises(LocalBackendError, match=f"'--cpu-threads', '{len(os.sched_getaffinity(0))}'"):
        await failed
    await own.stop()


@LINUX
async def test_a_killed_router_leaves_none_running(tmp_path):
    """The parent is killed outright: only the kernel can end the child."""
    (port,) = free_ports(1)
    script = (
        "import os, subprocess, sys, time\n"
        f"command = [*{FAKE!r}, '--port', '{port}']\n"
        "subprocess.Popen([sys.executable, '-m', 'router.local_child', str(os.getpid()), *command])\n"
        "time.sleep(60)\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    url = f"http://127.0.0.1:{port}"
    await comes_up(url)
    parent.kill()
    await parent.wait()
    await answers(url, False)


def test_ports_are_different():
    assert len(set(free_ports(5))) == 5


async def listens(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def comes_up(url: str) -> None:
    await answers(url, True)


async def answers(url: str, wanted: bool) -> None:
    """Wait until the process behind ``url`` answers, or does not: another process has no event for it."""
    async with asyncio.timeout(20):
        while await listens(url) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
