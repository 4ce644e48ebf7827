"""A router in this process in front of simulated backends, each behind a proxy that fails on command."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from benchmarks.fault_proxy import Fault, FaultProxy
from benchmarks.sim_backend import FAST, SimBackend, expected_text
from router.app import Router
from router.config import RouterConfig
from tests.router.conftest import until


@dataclass
class Proxied:
    """The parts. ``ask`` is a client that checks what it gets."""

    router: Router
    proxies: list[FaultProxy]
    client: aiohttp.ClientSession

    async def ask(self, question: str = "hi", tokens: int = 8, stream: bool = True, **fields) -> int:
        """The status of a chat; a good answer must be the expected one. Raises what the client sees of a cut."""
        messages = [{"role": "user", "content": question}]
        body = {"messages": messages, "max_tokens": tokens, "stream": stream, **fields}
        async with self.client.post("/v1/chat/completions", json=body) as answer:
            raw = await answer.read()
            if answer.status == 200:
                assert (streamed(raw) if stream else whole(raw)) == expected_text(messages, tokens)
            return answer.status

    def leases(self) -> int:
        return sum(self.router.leases.load(worker.url).requests for worker in self.router.registry.all())

    async def settled(self) -> None:
        """Nothing of what was asked is left anywhere."""
        await until(lambda: self.router.inflight.count == 0 and self.leases() == 0)

    def metric(self, name: str, **labels: str) -> float:
        return self.router.metrics.registry.get_sample_value(name, labels) or 0.0


def streamed(raw: bytes) -> str:
    """The text of a chat's stream, which must be whole and of one piece."""
    assert raw.endswith(b"data: [DONE]\n\n")
    events = [json.loads(part[6:]) for part in raw.split(b"\n\n")[:-2]]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert len({event["id"] for event in events}) == 1
    assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    return "".join(delta.get("content", "") for delta in deltas)


def whole(raw: bytes) -> str:
    return json.loads(raw)["choices"][0]["message"]["content"]


@asynccontextmanager
async def proxied(count: int = 2, **settings) -> AsyncIterator[Proxied]:
    """``count`` backends, all well at first; the policy sends to them by turns unless ``settings`` say otherwise."""
    backends = [await SimBackend(FAST).start() for _ in range(count)]
    proxies = [await FaultProxy(backend.port).start() for backend in backends]
    defaults = {
        "host": "127.0.0.1", "port": 0, "seed": 1, "policy": "round_robin",
        "retry_initial_backoff_ms": 1, "first_byte_probe_secs": 0.1, "cb_timeout_duration_secs": 0.5,
    }  # fmt: skip
    hosts = [f"127.0.0.1:{proxy.port}" for proxy in proxies]
    router = Router(RouterConfig(**{**defaults, "router_hosts": hosts, **settings}))
    await router.start()
    try:
        await until(lambda: len(router.registry.healthy()) == count)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{router.port}") as client:
            yield Proxied(router, proxies, client)
    finally:
        await router.stop()
        for part in (*proxies, *backends):
            await part.stop()


__all__ = ["Fault", "Proxied", "proxied"]
