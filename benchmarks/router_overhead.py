"""What a router costs: CPU a request, added latency, CPU a stream chunk and memory, beside other routers.

    python -m benchmarks.router_overhead [--quick] [--only small-32 sse-paced] [--peers all] [--compiled]

Backends and load run on one core and answer at once; the router has the other core to itself. CPU is what the kernel
charged to the router's process and its children, so that noise of the machine matters little. Runs alternate between
the routers; a figure is the median, the ratio is to sglang-router in the same session. Ours runs on the interpreter
that runs this, which is named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import IO, Any

import psutil

from benchmarks import interpreter, router_peers
from benchmarks.interpreter import Interpreter
from benchmarks.processes import answers, free_port
from benchmarks.router_peers import Peer
from benchmarks.router_table import Goal, table
from router.config import RouterConfig

RESULTS = Path(__file__).parent / "results"
LOAD_CORE, ROUTER_CORE = 0, 1
WARM_UP = 500
INDEX_MIB = RouterConfig().prefix_bytes / 2**20


@dataclass(frozen=True)
class Case:
    """One line of the table. ``figures`` of a run, with what is to be reached: cpu_us (per request or chunk), p50_ms,
    p99_ms, peak_mib (the most memory up to the run's end), rss_mib (at its end).
    """

    name: str
    about: str
    requests: int
    connections: int = 32
    size: int = 256
    shared: float = 0.0
    chunks: int = 0  # of each stream; an odd number comes one each 10 ms
    rate: float = 0.0
    fresh: bool = False  # in a router of its own, which did nothing before
    figures: tuple[Goal, ...] = (Goal("cpu_us"),)

    @property
    def units(self) -> int:
        """What CPU is divided by: requests, or chunks of streams."""
        return self.requests * (self.chunks or 1)


CASES = (
    Case("small-1", "small, 1 connection", 8000, 1),
    Case("small-32", "small, 32 connections", 20000, figures=(Goal("cpu_us", ratio=0.52),)),
    Case("small-256", "small, 256 connections", 20000, 256, figures=(Goal("cpu_us", ratio=0.45),)),
    Case("1k-32", "1 KiB, distinct", 20000, size=1024),
    Case("32k-distinct", "32 KiB, distinct", 6000, size=32768, figures=(Goal("cpu_us", ratio=0.49),)),
    Case("32k-shared", "32 KiB, 90 % shared head", 6000, size=32768, shared=0.9, figures=(Goal("cpu_us", ratio=0.5),)),
    Case("256k", "256 KiB, distinct", 1500, size=262144, figures=(Goal("cpu_us", ratio=0.5),)),
    Case(
        "open-1000", "open loop, 1,000 req/s", 5000, rate=1000.0,
        figures=(Goal("cpu_us"), Goal("p50_ms", most=0.18), Goal("p99_ms", most=0.5)),
    ),
    Case(
        "sse-paced", "SSE, 64 streams, a chunk each 10 ms", 64, 64, chunks=301,
        figures=(Goal("cpu_us", ratio=0.71), Goal("p50_ms", most=2.7)),
    ),
    Case("sse-fast", "SSE as fast as it goes", 512, 64, chunks=400, figures=(Goal("cpu_us", ratio=1.0),)),
    Case(
        "memory", "20,000 distinct 32 KiB prompts, alone", 20000, size=32768, fresh=True,
        figures=(Goal("peak_mib", most=INDEX_MIB + 100), Goal("rss_mib", most=INDEX_MIB + 100)),
    ),
)  # fmt: skip


class Fleet:
    """The backends, on the load's core."""

    def __init__(self) -> None:
        self._process = _load_process("backends", "--count", "4")
        self.ports: list[int] = json.loads(_line(self._process))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@contextmanager
def started(peer: Peer, backends: Sequence[int]) -> Iterator[tuple[int, psutil.Process]]:
    """(port, process) of a running router."""
    port = free_port()
    process = subprocess.Popen(
        ["taskset", "-c", str(ROUTER_CORE), *peer.command(port, backends)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/v1/models"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{peer.name} did not start")
            time.sleep(0.2)
        time.sleep(1.0)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def run(case: Case, port: int, seed: int) -> dict[str, float]:
    """The load alone: what the clients saw."""
    process = _load_process(
        "requests", "--port", str(port), "--requests", str(case.requests), "--connections", str(case.connections),
        "--size", str(case.size), "--shared", str(case.shared), "--chunks", str(case.chunks), "--rate", str(case.rate),
        "--seed", str(seed),
    )  # fmt: skip
    said = _line(process)
    if process.wait(120):
        raise SystemExit(f"the load of {case.name} failed")
    return dict(json.loads(said))


def measure(case: Case, port: int, process: psutil.Process, seed: int) -> dict[str, float]:
    """One run against a router, with what it cost."""
    before = cpu_seconds(process)
    said = run(case, port, seed)
    said["cpu_us"] = (cpu_seconds(process) - before) / case.units * 1e6
    said["rss_mib"] = sum(one.memory_info().rss for one in _family(process)) / 2**20
    said["peak_mib"] = sum(_peak_kib(one) for one in _family(process)) / 2**10
    return said


def cpu_seconds(process: psutil.Process) -> float:
    """CPU charged to a process, its threads and its children, to the nanosecond where the kernel tells it."""
    total = 0
    for one in _family(process):
        for thread in Path(f"/proc/{one.pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def _peak_kib(process: psutil.Process) -> int:
    """The most memory that a process had in RAM so far."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _load_process(*arguments: str) -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.router_load", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    stream: IO[str] | None = process.stdout
    return stream.readline() if stream is not None else ""


def session(peers: Sequence[Peer], cases: Sequence[Case], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Medians by case, router and figure. Every round starts every router afresh."""
    seen: dict[str, dict[str, list[dict[str, float]]]] = {case.name: {} for case in cases}
    fleet = Fleet()
    try:
        for number in range(rounds):
            for case in cases:
                if any(goal.figure == "p50_ms" for goal in case.figures):
                    seen[case.name].setdefault("direct", []).append(run(case, fleet.ports[0], number))
            for peer, group in product(peers, _groups(cases)):
                with started(peer, fleet.ports) as (port, process):
                    run(Case("warm-up", "", WARM_UP), port, 1000 + number)
                    for case in group:
                        seen[case.name].setdefault(peer.name, []).append(measure(case, port, process, number))
    finally:
        fleet.close()
    return {case: {who: _medians(runs) for who, runs in by.items()} for case, by in seen.items()}


def _groups(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases that share a router."""
    together = [case for case in cases if not case.fresh]
    return [group for group in (together, *([case] for case in cases if case.fresh)) if group]


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {figure: median(run[figure] for run in runs) for figure in runs[0]}


def save(path: Path, python: Interpreter, peers: Sequence[Peer], rounds: int, results: dict[str, Any]) -> None:
    """The figures with what they were taken from."""
    path.parent.mkdir(exist_ok=True)
    machine = {"cpu": cpu_model(), "cores": os.cpu_count(), "python": asdict(python)}
    versions = {peer.name: peer.version for peer in peers}
    content = {"when": time.strftime("%Y-%m-%d %H:%M"), **machine, "versions": versions, "rounds": rounds}
    path.write_text(json.dumps({**content, "results": results}, indent=1) + "\n")


def cpu_model() -> str:
    """As the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, without the memory case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], help="these cases alone")
    parser.add_argument("--peers", default=os.environ.get("PEERS", "main"), choices=("none", "main", "all"))
    parser.add_argument("--compiled", action="store_true", help="also the router as machine code (make compiled)")
    parser.add_argument("--output", type=Path, default=RESULTS / "router_overhead.json")
    arguments = parser.parse_args()
    wanted = arguments.only or [case.name for case in CASES if not arguments.quick or case.name != "memory"]
    cases = [case for case in CASES if case.name in wanted]
    peers = [router_peers.ours(), *([router_peers.compiled()] if arguments.compiled else [])]
    if arguments.peers != "none":
        peers += [router_peers.nginx(), router_peers.sglang_router()]
    if arguments.peers == "all":
        peers += [router_peers.vllm_router(), router_peers.smg()]
    rounds = 1 if arguments.quick else arguments.rounds
    python = interpreter.this()
    print(f"{cpu_model()}, {os.cpu_count()} cores; {python}", flush=True)
    results = session(peers, cases, rounds)
    save(arguments.output, python, peers, rounds, results)
    rows = [(case.name, case.about, case.figures) for case in cases]
    print(table(results, rows, [peer.name for peer in peers]))


if __name__ == "__main__":
    main()
