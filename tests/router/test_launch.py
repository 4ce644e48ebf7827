"""The command itself, as a process of its own, in front of a backend in this one."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from router.config import RouterConfig
from router.local import free_ports
from router.progress import announce
from tests.router.conftest import chat
from tests.router.fake_backend import FakeBackend
from tests.router.test_local import answers


@asynccontextmanager
async def launched(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router.launch_router", "--host", "127.0.0.1", "--router-port", str(port), *flags),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_serves_and_after_sigterm_finishes_what_is_under_way():
    backend = await FakeBackend().start()
    try:
        async with (
            launched("--router-hosts", f"127.0.0.1:{backend.port}") as (process, url),
            aiohttp.ClientSession(url) as client,
        ):
            await answers(url, True)
            backend.may_go_on.clear()
            async with client.post("/v1/chat/completions", json=chat("hi", stream=True)) as answer:
                await answer.content.readany()
                process.send_signal(signal.SIGTERM)
                await answers(url, False)
                assert process.returncode is None
                backend.may_go_on.set()
                assert (await answer.read()).endswith(b"[DONE]\n\n")
            assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        await backend.stop()


async def test_a_second_signal_does_not_wait():
    backend = await FakeBackend().start()
    backend.may_answer.clear()
    try:
        async with (
            launched("--router-hosts", f"127.0.0.1:{backend.port}") as (process, url),
            aiohttp.ClientSession(url) as client,
        ):
            await answers(url, True)
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=chat("hi")))
            await backend.until(lambda: backend.running == 1)
            process.send_signal(signal.SIGINT)
            await answers(url, False)
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 10) == 0
            await backend.until(lambda: backend.abandoned == 1)
            await asyncio.gather(asking, return_exceptions=True)
    finally:
        await backend.stop()


async def test_a_port_that_is_taken_is_one_line_and_status_1():
    backend = await FakeBackend().start()
    try:
        flags = ("--router-hosts", f"127.0.0.1:{backend.port}", "--port", str(backend.port), "--log-level", "error")
        async with launched(*flags) as (process, _):
            _, error = await process.communicate()
        assert process.returncode == 1
        assert error == b"launch_router: error: cannot listen on 127.0.0.1:%d: Address already in use\n" % backend.port
    finally:
        await backend.stop()


async def test_a_template_that_cannot_be_had_is_one_warning():
    backend = await FakeBackend().start()
    try:
        async with launched("--router-hosts", f"127.0.0.1:{backend.port}", "--model-path", "/no/such") as (
            process,
            url,
        ):
            await answers(url, True)
            process.terminate()
            _, error = await process.communicate()
        assert process.returncode == 0
        assert error.count(b"WARNING") == 1
        assert b"/no/such" in error
    finally:
        await backend.stop()


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_fleet_may_begin_empty(processes):
    backend = await FakeBackend().start()
    try:
        async with (
            launched("--enable-igw", "--workers", processes) as (process, url),
            asyncio.timeout(30),
            aiohttp.ClientSession(url) as client,
        ):
            while b"no workers yet (POST /workers)" not in (line := await process.stderr.readline()):
                assert line
            async with client.get("/readiness") as answer:
                assert (await answer.json())["status"] == "no healthy worker"
            async with client.post("/workers", json={"url": backend.url}) as answer:
                assert answer.status == 202
            while (await client.get("/readiness")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            async with client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200
    finally:
        await backend.stop()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"router_hosts": ["a:1"]}, "listening on http://127.0.0.1:9, policy cache_aware, 1 workers"),
        ({"workers_file": "w.yaml", "tls_cert_path": "x"}, "https://127.0.0.1:9, policy cache_aware, workers from w"),
        ({"service_discovery": True, "selector": ["a=b"]}, "workers from Kubernetes"),
    ],
)
def test_where_it_listens_and_whence_workers_come_is_said(settings, said, caplog, capsys):
    caplog.set_level("INFO")
    announce(RouterConfig(**settings), 9)
    assert said in caplog.text
    assert not capsys.readouterr().out
