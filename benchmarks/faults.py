"""The fault table: what clients see of each fault of a backend, and how soon the backend is used again.

    python -m benchmarks.faults          # about four minutes; writes docs/faults.md

Four simulated backends, 50 requests a second for ten seconds, each client gives up after four seconds; all the while
one backend is bad. Then it is well again. The router has its default settings.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from benchmarks.fault_proxy import Fault, FaultProxy
from benchmarks.sim_backend import SimBackend
from policies.sim import EngineSpec
from router.app import Router
from router.config import RouterConfig

PAGE = Path(__file__).parent.parent / "docs" / "faults.md"
BACKENDS = 4
RATE = 50
PATIENCE = 4.0
RECOVERY_LIMIT = 30.0
TOKENS = 12
FRESH = 1_000_000  # from this number on each request begins a conversation of its own
SPEC = EngineSpec(kv_tokens=1_000_000, prefill_tokens_per_s=20_000.0, step_ms=5.0, sequence_ms=0.1)

INTRODUCTION = """\
# Faults

Written by `python -m benchmarks.faults`. Four simulated backends, {rate} requests a second for {seconds:g} s, three of
four being streams; one backend is bad all the while, then well again. Clients give up after {patience:g} s. The router
has its default settings, with `--resume-streams` where the table says so.

*errors*: requests whose client got anything but a whole, right answer. *used again*: time from the backend's recovery
to its first answer to a client, while conversations that nobody knows yet come in.

| fault | requests | hit the bad backend | errors | slowest answer | used again |
|---|---|---|---|---|---|
"""

LEAVING = """\

## Clients that leave

Time from the client's leaving until the connection to the backend is closed; the median of {count}.

| phase | closed after |
|---|---|
"""


@dataclass
class Row:
    """One line of the table."""

    name: str
    requests: int = 0
    hit: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    again: float | None = None

    def text(self) -> str:
        told = ", ".join(f"{count} {name}" for name, count in self.errors.items()) or "none"
        again = "not within 30 s" if self.again is None else f"{self.again:.1f} s"
        return f"| {self.name} | {self.requests} | {self.hit} | {told} | {self.slowest:.2f} s | {again} |"


@dataclass
class Fleet:
    """Backends, the proxies before them, a router, a client."""

    backends: list[SimBackend]
    proxies: list[FaultProxy]
    router: Router
    session: aiohttp.ClientSession


@asynccontextmanager
async def fleet(resume: bool) -> AsyncIterator[Fleet]:
    """Everything is well at first."""
    backends = [await SimBackend(SPEC).start() for _ in range(BACKENDS)]
    proxies = [await FaultProxy(backend.port).start() for backend in backends]
    hosts = [f"127.0.0.1:{proxy.port}" for proxy in proxies]
    router = Router(RouterConfig(host="127.0.0.1", port=0, router_hosts=hosts, resume_streams=resume))
    await router.start()
    try:
        await _until(lambda: len(router.registry.healthy()) == BACKENDS)
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{router.port}", connector=aiohttp.TCPConnector(limit=0)
        ) as session:
            yield Fleet(backends, proxies, router, session)
    finally:
        await router.stop()
        for part in (*proxies, *backends):
            await part.stop()


async def measure(fault: Fault, resume: bool, seconds: float) -> Row:
    """One fault under load, then the recovery."""
    row = Row(f"{fault.value}, `--resume-streams`" if resume else fault.value)
    async with fleet(resume) as parts:
        await _load(parts, 1.0, Row(""))  # the router has learned what is usual
        bad, proxy = parts.backends[0], parts.proxies[0]
        await proxy.become(fault)
        await _load(parts, seconds, row)
        row.hit = proxy.faulted
        await proxy.become(None)
        row.again = await _again(parts, bad)
    return row


async def _load(parts: Fleet, seconds: float, row: Row) -> None:
    loop, tasks = asyncio.get_running_loop(), []
    begin = loop.time()
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(max(0.0, begin + number / RATE - loop.time()))
        tasks.append(asyncio.create_task(_request(parts.session, number, row)))
    await asyncio.gather(*tasks)


async def _request(session: aiohttp.ClientSession, number: int, row: Row) -> None:
    row.requests += 1
    head = number % 40 if number < FRESH else number
    question = f"{head} " + "context " * 200 + str(number)
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, "stream": number % 4 != 0}
    begin = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE), session.post("/v1/chat/completions", json=body) as answer:
            raw = await answer.read()
        if answer.status != 200:
            row.errors[f"x {answer.status}"] += 1
        elif body["stream"] and not raw.endswith(b"data: [DONE]\n\n"):
            row.errors["half streams"] += 1
        row.slowest = max(row.slowest, time.monotonic() - begin)
    except TimeoutError:
        row.errors["gave up"] += 1
    except aiohttp.ClientError:
        row.errors["cut"] += 1


async def _again(parts: Fleet, backend: SimBackend) -> float | None:
    """Seconds until ``backend`` serves again, under the same load."""
    before, begin, ignored = backend.served, time.monotonic(), Row("")
    tasks: list[asyncio.Task[None]] = []
    while backend.served == before and time.monotonic() - begin < RECOVERY_LIMIT:
        tasks.append(asyncio.create_task(_request(parts.session, FRESH + len(tasks), ignored)))
        await asyncio.sleep(1 / RATE)
    again = time.monotonic() - begin if backend.served > before else None
    await asyncio.gather(*tasks)
    return again


async def leaving(phase: str, count: int) -> str:
    """How soon the backend's connection is closed behind a client that leaves."""
    times = []
    async with fleet(False) as parts:
        for proxy in parts.proxies:
            await proxy.become(Fault.STUCK if phase == "before the first byte" else None)
        for _ in range(count):
            task = asyncio.create_task(_long_stream(parts.session))
            await _until(lambda: any(proxy.under_way for proxy in parts.proxies))
            await asyncio.sleep(0.1)
            begin = time.monotonic()
            task.cancel()
            await _until(lambda: not any(proxy.under_way for proxy in parts.proxies))
            times.append(time.monotonic() - begin)
    return f"| {phase} | {median(times) * 1000:.0f} ms |"


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - looks at what has no events
        await asyncio.sleep(0.001)


async def _long_stream(session: aiohttp.ClientSession) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5000, "stream": True}
    async with session.post("/v1/chat/completions", json=body) as answer:
        await answer.read()


async def table(seconds: float) -> str:
    """The whole page."""
    lines = INTRODUCTION.format(rate=RATE, seconds=seconds, patience=PATIENCE)
    cases = [(fault, False) for fault in Fault] + [(Fault.CUT, True), (Fault.TRUNCATE, True)]
    for fault, resume in cases:
        row = await measure(fault, resume, seconds)
        print(row.text(), flush=True)
        lines += row.text() + "\n"
    lines += LEAVING.format(count=20)
    for phase in ("before the first byte", "in mid-stream"):
        line = await leaving(phase, 20)
        print(line, flush=True)
        lines += line + "\n"
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of load under each fault")
    args = parser.parse_args()
    logging.disable(logging.ERROR)  # faults are on purpose here
    PAGE.write_text(asyncio.run(table(args.seconds)), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
