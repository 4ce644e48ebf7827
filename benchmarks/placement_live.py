"""One run over HTTP: simulated engines in a process of their own, a router in front of them, and a workload."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.placement_client import play, result
from benchmarks.placement_workloads import ENGINES, Workload
from benchmarks.processes import answers, free_port
from benchmarks.router_peers import Peer
from policies.sim import EngineSpec, Result

QUIET = 100_000  # tokens in an event after the first: what follows the first token is not measured
STARTS, START_S = 3, 30.0
SETTLE_S = 1.5  # after a router answers: it may still be registering engines


@dataclass(frozen=True, slots=True)
class Live:
    """How a workload is played: ``routers`` independent processes, asked in turn.

    ``flush_at``: the time at which the second engine loses its cache, which nobody tells the router. ``heads``: answers
    tell their cached tokens in the head, as our own backend's do, and not only at their end.
    """

    routers: int = 1
    speed: float | None = None  # None: the workload's own
    specs: tuple[EngineSpec, ...] = ()  # of the engines; none: what the workload says, four times
    flush_at: float | None = None
    heads: bool = False


@contextmanager
def engines(specs: Sequence[EngineSpec], speed: float, heads: bool = False) -> Iterator[list[int]]:
    """The ports of running engines; those of equal speed share a process."""
    with ExitStack() as stack:
        ports: list[int] = []
        for spec in dict.fromkeys(specs):
            ports += stack.enter_context(_equal_engines(spec, specs.count(spec), speed, heads))
        yield ports


@contextmanager
def _equal_engines(spec: EngineSpec, count: int, speed: float, heads: bool) -> Iterator[list[int]]:
    command = [
        sys.executable, "-m", "benchmarks.sim_backend", "--port", "0", "--count", str(count), "--speed", str(speed),
        "--kv-tokens", str(spec.kv_tokens), "--prefill-tokens-per-s", str(spec.prefill_tokens_per_s),
        "--step-ms", str(spec.step_ms), "--sequence-ms", str(spec.sequence_ms), "--tokenizer", "characters",
        "--stream-interval", str(QUIET), *([] if heads else ["--no-cached-header"]),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise RuntimeError("the engines' process has no output")
    try:
        lines = [process.stdout.readline() for _ in range(count)]
        yield [int(line.rsplit(":", 1)[1]) for line in lines]
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def router(peer: Peer, backends: Sequence[int]) -> Iterator[str]:
    """The URL of a running router. A port may be taken between its choice and its use, so a start is tried again."""
    for _ in range(STARTS):
        port = free_port(following=1)
        command = peer.command(port, backends)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            if _answers_in_time(process, f"{url}/v1/models"):
                time.sleep(SETTLE_S)
                yield url
                return
        finally:
            process.terminate()
            process.wait(30)
    raise SystemExit(f"{peer.name} did not start: {' '.join(command)}")


def _answers_in_time(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + START_S
    while not answers(url):
        if time.monotonic() > deadline or process.poll() is not None:
            return False
        time.sleep(0.2)
    return True


def live(
    workload: Workload, peer: Peer, seed: int, setup: Live | None = None, tick: Callable[[], None] = lambda: None
) -> Result:
    """``workload`` through ``peer``. Raises TrafficError for an answer that is not as it must be."""
    setup = setup or Live()
    requests = workload.requests(seed)
    speed = setup.speed or workload.speed
    specs = setup.specs or (workload.spec(requests),) * ENGINES
    with engines(specs, speed, setup.heads) as ports, ExitStack() as stack:
        urls = [stack.enter_context(router(peer, ports)) for _ in range(setup.routers)]
        flush = [] if setup.flush_at is None else [(setup.flush_at, f"http://127.0.0.1:{ports[1]}/flush_cache")]
        said = asyncio.run(play(requests, speed, lambda number: urls[number % len(urls)], tick, flush))
    return result(requests, said, speed, ports)
