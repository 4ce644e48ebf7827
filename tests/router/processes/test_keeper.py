"""How data processes are started."""

from __future__ import annotations

import asyncio
import socket

from router.http.message import Request
from router.processes import keeper
from router.processes.channel import Channel


def test_another_router_in_the_working_directory_is_not_taken(tmp_path, monkeypatch):
    (tmp_path / "router").mkdir()
    monkeypatch.chdir(tmp_path)
    assert keeper._import_flags() == ["-P"]
    monkeypatch.chdir(keeper.HOME)
    assert keeper._import_flags() == []


async def test_a_process_that_hangs_holds_up_nobody_who_asks_all(monkeypatch):
    monkeypatch.setattr(keeper, "ASK_SECONDS", 0.01)
    keeping = keeper.Keeper(0, -1, None)
    line, silent = socket.socketpair()
    line.setblocking(False)
    keeping._channel = Channel(None, None, None, lambda: None)
    await keeping._channel.connect(line)
    with silent:
        async with asyncio.timeout(10):
            assert await keeping.ask(Request("GET", "/metrics", "1.1", [], {}, "", "http")) is None
        keeping._channel.close()


async def test_a_process_that_cannot_be_started_now_is_started_later(monkeypatch):
    tries = []

    async def refuse(*_args, **_kwargs):
        tries.append(1)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(keeper, "BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    keeping = keeper.Keeper(0, 0, None)
    keeping._listening.set_result(None)  # it had been running
    keeping._task = asyncio.create_task(keeping._keep())
    async with asyncio.timeout(10):
        while len(tries) < 3:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    await keeping.stop()
