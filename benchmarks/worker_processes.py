"""``--workers N``: what several processes cost in hit rate, and what they take of the CPU.

    python -m benchmarks.worker_processes [--workers 1 4] [--conversations 120] [--turns 6]

Multi-turn chats over four simulated engines whose caches hold about half of all conversations. Every request comes on a
connection of its own, so that it meets any of the processes: a process that knew only what it placed itself would find
one conversation in N.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.processes import free_port, running

ENGINES = 4
WORDS = ["river", "stone", "cloud", "engine", "garden", "window", "market", "bridge", "letter", "island", "forest"]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Result:
    """Of one number of processes."""

    workers: int
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / self.prompt_tokens


async def converse(session: aiohttp.ClientSession, url: str, rng: random.Random, turns: int, result: Result) -> None:
    """One user: each turn sends the whole history."""
    messages = [{"role": "system", "content": " ".join(rng.choices(WORDS, k=60))}]
    for _ in range(turns):
        messages.append({"role": "user", "content": " ".join(rng.choices(WORDS, k=80))})
        async with session.post(f"{url}/v1/chat/completions", json={"messages": messages, "max_tokens": 8}) as response:
            response.raise_for_status()
            answer = await response.json()
        usage = answer["usage"]
        result.requests += 1
        result.prompt_tokens += usage["prompt_tokens"]
        result.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        await asyncio.sleep(rng.uniform(0.05, 0.3))


async def chat(url: str, conversations: int, turns: int, result: Result) -> None:
    """All conversations, twenty at a time."""
    places = asyncio.Semaphore(20)
    connector = aiohttp.TCPConnector(force_close=True, limit=0)

    async def one(session: aiohttp.ClientSession, seed: int) -> None:
        async with places:
            await converse(session, url, random.Random(seed), turns, result)

    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(one(session, seed) for seed in range(conversations)))


@contextmanager
def engines(kv_tokens: int) -> Iterator[list[str]]:
    """Simulated engines in a process of their own; yields their addresses."""
    command = [sys.executable, "-m", "benchmarks.sim_backend", "--port", "0", "--count", str(ENGINES)]
    command += ["--kv-tokens", str(kv_tokens), "--step-ms", "1", "--prefill-tokens-per-s", "50000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(ENGINES)] if process.stdout else []
        yield [found[0] for line in lines if (found := re.search(r"127\.0\.0\.1:\d+", line))]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def cpu_seconds(pattern: str) -> float:
    """CPU time of the router's processes, found by their port or module in the command line."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if pattern in command:
                total += int(fields[11]) + int(fields[12])
                total += sum(_ticks(child) for child in _children(folder.name))
    return total / TICKS


def _children(parent: str) -> list[Path]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[1] == parent:
                found.append(folder)
    return found


def _ticks(folder: Path) -> int:
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def measure(workers: int, args: argparse.Namespace) -> Result:
    """A fresh fleet and a fresh router."""
    result, port = Result(workers), free_port()
    with engines(args.kv_tokens) as hosts:
        flags = ["--router-hosts", *hosts, "--workers", str(workers), "--seed", "1", "--log-level", "error"]
        with running("router.launch_router", *flags, "--port", str(port), port=port, path="/readiness") as url:
            before, began = cpu_seconds(f"--port {port}"), time.monotonic()
            asyncio.run(chat(url, args.conversations, args.turns, result))
            result.seconds = time.monotonic() - began
            result.cpu_seconds = cpu_seconds(f"--port {port}") - before
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--conversations", type=int, default=120)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--kv-tokens", type=int, default=8_000, help="cache of each engine")
    args = parser.parse_args()
    print(f"{'workers':>8} {'requests':>9} {'hit rate':>9} {'CPU ms/request':>15} {'seconds':>8}")
    for workers in args.workers:
        result = measure(workers, args)
        cost = result.cpu_seconds * 1000 / result.requests
        print(f"{workers:>8} {result.requests:>9} {result.hit_rate:>9.3f} {cost:>15.2f} {result.seconds:>8.1f}")


if __name__ == "__main__":
    main()
