"""A fleet of fake backends behind a router, in this process, on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from router.app import Router
from router.config import RouterConfig
from router.fleet.worker import Health
from tests.router.fake_backend import FakeBackend


@dataclass
class Fleet:
    """A started router, its backends, and a client that talks to the router."""

    router: Router
    backends: list[FakeBackend]
    client: aiohttp.ClientSession

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0 when it is not there."""
        return self.router.metrics.registry.get_sample_value(name, labels) or 0.0

    def leases(self) -> int:
        return sum(self.router.leases.load(worker.url).requests for worker in self.router.registry.all())


async def until(condition) -> None:
    """Wait until ``condition()`` holds, looking again at every turn of the event loop."""
    async with asyncio.timeout(10):
        # Many different conditions, in code that has no events for tests.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(*backends: FakeBackend, ready: bool = True, **settings) -> AsyncIterator[Fleet]:
    """A router in front of ``backends``; with ``ready`` all of them passed a health check."""
    for backend in backends:
        await backend.start()
    defaults = {"host": "127.0.0.1", "port": 0, "seed": 1, "retry_initial_backoff_ms": 1}
    hosts = [backend.url for backend in backends]
    router = Router(RouterConfig(**{**defaults, "router_hosts": hosts, **settings}))
    await router.start()
    try:
        if ready:
            await until(lambda: all(worker.health is Health.HEALTHY for worker in router.registry.all()))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{router.port}", auto_decompress=False) as client:
            yield Fleet(router, list(backends), client)
    finally:
        await router.stop()
        for backend in backends:
            await backend.stop()


def chat(*contents: str, **fields) -> dict:
    """A chat body; contents are user and assistant by turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return {"model": "fake-model", "messages": messages, **fields}
