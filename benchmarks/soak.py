"""Random faults over simulated backends for as long as you like; nothing may be lost and nothing may be left behind.

    python -m benchmarks.soak                     # ten minutes
    python -m benchmarks.soak --requests 2000     # as in the test suite
    python -m benchmarks.soak --workers 2         # the router in several processes

One backend is always well, so every request must be answered, and rightly. At the end no lease, no task and no socket
of the router may remain, in none of its processes. Exit status 0: so it was.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import aiohttp

from benchmarks.fault_proxy import Fault, FaultProxy
from benchmarks.sim_backend import FAST, SimBackend, expected_text
from router.app import Router
from router.config import RouterConfig
from router.processes.owner import Owner

BACKENDS = 4
CLIENTS = 16
FAULT_SECONDS = (0.1, 0.8)


@dataclass
class Report:
    """What happened. ``wrong``: answers that were not what they must be. ``left``: what remained at the end."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Requests whose client did not leave and that were not answered with 200."""
        return sum(count for status, count in self.statuses.items() if status not in ("200", "left"))

    @property
    def good(self) -> bool:
        return not (self.lost or self.wrong or any(self.left.values()))


async def soak(enough: Callable[[Report], bool], seed: int, workers: int = 1) -> Report:
    """Send requests until ``enough`` says so."""
    report, rng = Report(), Random(seed)
    backends = [await SimBackend(FAST).start() for _ in range(BACKENDS)]
    proxies = [await FaultProxy(backend.port, cut_after=500, slow_seconds=0.2).start() for backend in backends]
    tasks_before, sockets_before = len(asyncio.all_tasks()), _sockets()
    config = _config(proxies, seed, workers)
    router = Router(config) if workers == 1 else Owner(config)
    await router.start()
    await _until(lambda: len(router.registry.healthy()) == BACKENDS)
    children = [] if isinstance(router, Router) else [keeper.pid for keeper in router.keepers]
    children_before = sum(map(_sockets, children))
    stop = asyncio.Event()
    trouble = asyncio.create_task(_trouble(proxies, report, stop, rng))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{router.port}") as session:
            clients = (_client(session, report, enough, Random(rng.random())) for _ in range(CLIENTS))
            await asyncio.gather(*clients)
    finally:
        stop.set()
        await trouble
    await _until(lambda: not _leases(router) and not router.under_way)
    report.left = {"leases": _leases(router), "requests": router.under_way}
    await _until(lambda: sum(map(_sockets, children)) <= children_before)
    report.left["sockets of data processes"] = max(0, sum(map(_sockets, children)) - children_before)
    await router.stop()
    await _until(lambda: len(asyncio.all_tasks()) <= tasks_before and _sockets() <= sockets_before)
    report.left["tasks"] = max(0, len(asyncio.all_tasks()) - tasks_before)
    report.left["sockets"] = max(0, _sockets() - sockets_before)
    for part in (*proxies, *backends):
        await part.stop()
    return report


def _config(proxies: list[FaultProxy], seed: int, workers: int) -> RouterConfig:
    return RouterConfig(
        workers=workers,
        log_level="error",
        host="127.0.0.1",
        port=0,
        seed=seed,
        router_hosts=[f"127.0.0.1:{proxy.port}" for proxy in proxies],
        resume_streams=True,
        retry_initial_backoff_ms=5,
        retry_max_retries=8,
        first_byte_probe_secs=0.2,
        health_check_interval_secs=0.5,
        health_check_timeout_secs=0.5,
        prefix_index_bytes=4 * 2**20,
    )


async def _trouble(proxies: list[FaultProxy], report: Report, stop: asyncio.Event, rng: Random) -> None:
    """Up to all but one of the backends fail at a time; the first one never does."""
    while not stop.is_set():
        for proxy in proxies[1:]:
            fault = rng.choice([None, None, *Fault])
            report.faults[fault.value if fault else "well"] += 1
            await proxy.become(fault)
        await asyncio.sleep(rng.uniform(*FAULT_SECONDS))
    for proxy in proxies:
        await proxy.become(None)


async def _client(
    session: aiohttp.ClientSession, report: Report, enough: Callable[[Report], bool], rng: Random
) -> None:
    while not enough(report):
        report.requests += 1
        question = f"conversation {rng.randrange(50)} " + "word " * rng.randrange(60)
        messages = [{"role": "user", "content": question}]
        body = {"messages": messages, "max_tokens": rng.randint(1, 40), "stream": rng.random() < 0.7}
        patience = rng.uniform(0.0, 0.05) if rng.random() < 0.1 else None  # some leave early
        try:
            async with asyncio.timeout(patience):
                status = await _ask(session, body, report)
        except TimeoutError:
            status = "left"
        except aiohttp.ClientError as error:
            status = type(error).__name__
        report.statuses[status] += 1


async def _ask(session: aiohttp.ClientSession, body: dict, report: Report) -> str:
    async with session.post("/v1/chat/completions", json=body) as answer:
        raw = await answer.read()
    if answer.status == 200:
        text = _streamed(raw) if body["stream"] else json.loads(raw)["choices"][0]["message"]["content"]
        expected = expected_text(body["messages"], body["max_tokens"])
        if text != expected:
            report.wrong.append(f"expected {expected!r}, got {text!r}")
    return str(answer.status)


def _streamed(raw: bytes) -> str:
    events = [json.loads(part[6:]) for part in raw.split(b"\n\n") if part.startswith(b"data: {")]
    return "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])


def _leases(router: Router | Owner) -> int:
    """Those of several processes are what the owner counts as under way."""
    if isinstance(router, Owner):
        return router.under_way
    return sum(router.leases.load(worker.url).requests for worker in router.registry.all())


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        gc.collect()
        await asyncio.sleep(0.02)


def _sockets(process: int | str | None = "self") -> int:
    """Sockets that a process holds."""
    folder = f"/proc/{process}/fd"
    try:
        names = [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]
    except OSError:  # one went while we looked, or there is no /proc
        return 0
    return sum(name.startswith("socket:") for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, help="stop after so many instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes of the router")
    args = parser.parse_args()
    logging.disable(logging.ERROR)  # faults are on purpose here
    end = time.monotonic() + args.minutes * 60

    def enough(report: Report) -> bool:
        return report.requests >= args.requests if args.requests else time.monotonic() >= end

    report = asyncio.run(soak(enough, args.seed, args.workers))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{report.requests} requests: {dict(report.statuses)}")
    print(f"faults: {dict(report.faults)}")
    print(f"lost: {report.lost}, wrong answers: {len(report.wrong)}, left behind: {report.left}")
    print(f"peak memory: {peak} MiB")
    for line in report.wrong[:5]:
        print(f"  {line}")
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    main()
