"""Suites side by side: each lane has a backend of its own, a router in front of it, and one client at a time."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.conformance.environments import Environment, Here
from benchmarks.conformance.outcome import Outcome
from benchmarks.conformance.suites import Suite
from benchmarks.processes import free_port, running

MODEL = "conformance"
SERVER = ("--served-model-name", MODEL, "--tool-call-parser", "qwen")

Pythons = Mapping[Environment | Here, Path | str]  # an interpreter, or why there is none


@dataclass(frozen=True, slots=True)
class Job:
    """One suite against one target."""

    suite: Suite
    target: str  # "backend" or "router"


def install(suites: Sequence[Suite]) -> dict[Environment | Here, Path | str]:
    """The interpreter of each environment; one that cannot be installed is an outcome as well."""
    found: dict[Environment | Here, Path | str] = {}
    for environment in dict.fromkeys(suite.environment for suite in suites):
        try:
            found[environment] = environment.python()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            found[environment] = f"not installed: {' '.join(str(said).split())[-300:]}"
    return found


def run_all(
    jobs: Sequence[Job], pythons: Pythons, folder: Path, lanes: int, told: Callable[[Outcome], None]
) -> dict[Job, Outcome]:
    """Run ``jobs``, the longest first, ``lanes`` at a time; ``told`` hears of each that ends."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in sorted(jobs, key=lambda job: -job.suite.seconds):
        waiting.put(job)
    outcomes: dict[Job, Outcome] = {}

    def lane() -> None:
        with servers(threads=max(1, (os.cpu_count() or 1) // lanes)) as urls, contextlib.suppress(queue.Empty):
            while True:
                job = waiting.get_nowait()
                outcomes[job] = run(job, pythons[job.suite.environment], urls[job.target], folder)
                told(outcomes[job])

    with ThreadPoolExecutor(lanes) as pool:
        for ended in [pool.submit(lane) for _ in range(lanes)]:
            ended.result()
    return outcomes


@contextlib.contextmanager
def servers(threads: int) -> Iterator[dict[str, str]]:
    """URLs of a backend and of a router in front of it."""
    with contextlib.ExitStack() as stack:
        backend, front = free_port(), free_port(following=1)
        words = (*SERVER, "--cpu-threads", str(threads), "--port", str(backend))
        url = stack.enter_context(running("backend.launch_server", *words, port=backend))
        hosts = ("--router-hosts", f"127.0.0.1:{backend}", "--port", str(front), "--log-level", "warning")
        router = stack.enter_context(running("router.launch_router", *hosts, port=front, path="/readiness"))
        yield {"backend": url, "router": router}


def run(job: Job, python: Path | str, url: str, folder: Path) -> Outcome:
    """One suite, whatever becomes of it: a client that runs too long is an outcome as well."""
    suite = job.suite
    outcome = Outcome(suite.client, suite.name, job.target)
    if isinstance(python, str):
        outcome.trouble = python
        return outcome
    where = ["--model", MODEL, "--tokenizer", folder / "tokenizer", "--data", folder / "data", "--folder", folder]
    began = time.perf_counter()
    log = folder / f"{suite.script}-{job.target}-{'-'.join(suite.words).replace('/', '-')}.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [python, suite.path, url, *where, *suite.words],
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_PROXY": "127.0.0.1"},
        )
        try:
            status = process.wait(suite.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            outcome.trouble = f"not at its end after {suite.seconds:.0f} seconds"
            status = 0
    outcome.seconds = time.perf_counter() - began
    said = log.read_text(errors="replace").splitlines()
    outcome.read(said)
    if status:
        outcome.trouble = f"ended with status {status}: {' '.join(said[-3:])[-300:]}"
    return outcome


def in_rows(jobs: Sequence[Job], outcomes: Mapping[Job, Outcome]) -> list[Outcome]:
    """In the order of ``jobs``, the parts of a suite as one."""
    rows: dict[tuple[str, str], Outcome] = {}
    for job in jobs:
        outcome = outcomes[job]
        known = rows.setdefault((outcome.client, outcome.target), outcome)
        if known is not outcome:
            known.join(outcome)
    return list(rows.values())
