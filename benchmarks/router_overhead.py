"""What a router costs: CPU a request, added latency, CPU a stream chunk and memory, beside other routers.

    python -m benchmarks.router_overhead [--quick] [--only small-32 sse-paced] [--peers all]

Backends and load run on one core and answer at once; the router has the other core to itself. CPU is what the kernel
charged to the router's process and its children, so that noise of the machine matters little. Runs alternate between
the routers; a figure is the median, the ratio is to sglang-router in the same session.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

import psutil

from benchmarks import router_peers
from benchmarks.processes import answers, free_port
from benchmarks.router_peers import Peer

RESULTS = Path(__file__).parent / "results"
LOAD_CORE, ROUTER_CORE = 0, 1
WARM_UP = 500
REFERENCE = "sglang-router"


@dataclass(frozen=True)
class Case:
    """One line of the table. ``figures`` of a run: cpu_us (per request or chunk), p50_ms, p99_ms, rss_mib."""

    name: str
    about: str
    requests: int
    connections: int = 32
    size: int = 256
    shared: float = 0.0
    chunks: int = 0  # of each stream; an odd number comes one each 10 ms
    rate: float = 0.0
    figures: tuple[str, ...] = ("cpu_us",)

    @property
    def units(self) -> int:
        """What CPU is divided by: requests, or chunks of streams."""
        return self.requests * (self.chunks or 1)


CASES = (
    Case("small-1", "small, 1 connection", 8000, 1),
    Case("small-32", "small, 32 connections", 20000),
    Case("small-256", "small, 256 connections", 20000, 256),
    Case("1k-32", "1 KiB, distinct", 20000, size=1024),
    Case("32k-distinct", "32 KiB, distinct", 6000, size=32768),
    Case("32k-shared", "32 KiB, 90 % shared head", 6000, size=32768, shared=0.9),
    Case("256k", "256 KiB, distinct", 1500, size=262144),
    Case("open-1000", "open loop, 1,000 req/s", 5000, rate=1000.0, figures=("cpu_us", "p50_ms", "p99_ms")),
    Case("sse-paced", "SSE, 64 streams, a chunk each 10 ms", 64, 64, chunks=301, figures=("cpu_us", "p50_ms")),
    Case("sse-fast", "SSE as fast as it goes", 512, 64, chunks=400),
    Case("memory", "20,000 distinct 32 KiB prompts", 20000, size=32768, figures=("rss_mib",)),
)


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
    return said


def cpu_seconds(process: psutil.Process) -> float:
    """CPU charged to a process, its threads and its children, to the nanosecond where the kernel tells it."""
    total = 0
    for one in _family(process):
        for thread in Path(f"/proc/{one.pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


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
                if "p50_ms" in case.figures:
                    seen[case.name].setdefault("direct", []).append(run(case, fleet.ports[0], number))
            for peer in peers:
                with started(peer, fleet.ports) as (port, process):
                    run(Case("warm-up", "", WARM_UP), port, 1000 + number)
                    for case in cases:
                        seen[case.name].setdefault(peer.name, []).append(measure(case, port, process, number))
    finally:
        fleet.close()
    return {case: {who: _medians(runs) for who, runs in by.items()} for case, by in seen.items()}


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {figure: median(run[figure] for run in runs) for figure in runs[0]}


def table(results: dict[str, Any], cases: Sequence[Case], names: Sequence[str]) -> str:
    """Markdown; added latency is the router's figure less the one without a router."""
    ratio = "ratio to " + REFERENCE
    lines = ["| case | figure | " + " | ".join(names) + f" | {ratio} |", "|---|---|" + "---|" * (len(names) + 1)]
    for case in cases:
        by = results[case.name]
        for figure in case.figures:
            direct = by.get("direct", {}).get(figure, 0.0)
            values = {name: by[name][figure] - direct for name in names if name in by}
            cells = [f"{values[name]:.3g}" if name in values else "-" for name in names]
            known = values.get(REFERENCE) and "warmlane" in values
            share = f"{values['warmlane'] / values[REFERENCE]:.2f}" if known else "-"
            label = ("added " if direct else "") + figure.replace("_", " ")
            lines.append(f"| {case.about} | {label} | " + " | ".join(cells) + f" | {share} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, without the memory case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], help="these cases alone")
    parser.add_argument("--peers", default=os.environ.get("PEERS", "main"), choices=("none", "main", "all"))
    parser.add_argument("--output", type=Path, default=RESULTS / "router_overhead.json")
    arguments = parser.parse_args()
    wanted = arguments.only or [case.name for case in CASES if not arguments.quick or case.name != "memory"]
    cases = [case for case in CASES if case.name in wanted]
    peers = [router_peers.ours()]
    if arguments.peers != "none":
        peers += [router_peers.nginx(), router_peers.sglang_router()]
    if arguments.peers == "all":
        peers += [router_peers.vllm_router(), router_peers.smg()]
    rounds = 1 if arguments.quick else arguments.rounds
    results = session(peers, cases, rounds)
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps({"rounds": rounds, "cores": os.cpu_count(), "results": results}, indent=1))
    print(table(results, cases, [peer.name for peer in peers]))


if __name__ == "__main__":
    main()
