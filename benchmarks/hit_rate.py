"""Multi-turn chats over local backends: what share of the prompt tokens each policy finds cached.

    python -m benchmarks.hit_rate [--conversations 40] [--turns 5] [--policies cache_aware round_robin]

Two backends with the default model are started once; each policy gets a router of its own and empty caches. The hit
rate is cached / prompt tokens as the backends report them in ``usage``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import time
from dataclasses import dataclass, field

import aiohttp
from tqdm import tqdm

from benchmarks.processes import free_port, running

WORDS = ["river", "stone", "cloud", "engine", "garden", "window", "market", "bridge", "letter", "island", "forest"]


@dataclass
class Result:
    policy: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    repeated_tokens: int = 0  # what one backend with an endless cache would have found
    ttft_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / self.prompt_tokens


def sentence(r: random.Random, words: int) -> str:
    return " ".join(r.choice(WORDS) for _ in range(words)) + "."


async def converse(session: aiohttp.ClientSession, url: str, seed: int, turns: int, result: Result) -> None:
    """One user: each turn sends the whole history, as chat clients do."""
    r = random.Random(seed)
    messages = [{"role": "system", "content": f"You are assistant number {seed}. {sentence(r, 60)}"}]
    previous = 0
    for _ in range(turns):
        messages.append({"role": "user", "content": sentence(r, 40)})
        body = {"model": "default", "messages": messages, "max_tokens": 16, "temperature": 0}
        started = time.perf_counter()
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            result.ttft_ms.append((time.perf_counter() - started) * 1000)  # the head goes out with the first token
            answer = await response.json()
        usage = answer["usage"]
        result.prompt_tokens += usage["prompt_tokens"]
        result.repeated_tokens += previous
        previous = usage["prompt_tokens"] + usage["completion_tokens"] - 1
        result.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})


async def run(policy: str, url: str, backends: list[str], args: argparse.Namespace) -> Result:
    result = Result(policy)
    gate = asyncio.Semaphore(args.concurrency)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        for backend in backends:
            async with session.post(f"{backend}/flush_cache") as response:
                response.raise_for_status()
        bar = tqdm(total=args.conversations, desc=policy, unit="conversation")

        async def one(seed: int) -> None:
            async with gate:
                await converse(session, url, seed, args.turns, result)
            bar.update()

        started = time.perf_counter()
        await asyncio.gather(*(one(seed) for seed in range(args.conversations)))
        result.seconds = time.perf_counter() - started
        bar.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=8, help="conversations at the same time")
    parser.add_argument("--backends", type=int, default=2)
    parser.add_argument("--policies", nargs="+", default=["cache_aware", "round_robin"])
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        backends = []
        for _ in range(args.backends):
            port = free_port()
            flags = ("--port", str(port), "--cpu-threads", "1", "--log-level", "warning")
            backends.append(stack.enter_context(running("backend.launch_server", *flags, port=port)))
        results = [measure(policy, backends, args) for policy in args.policies]
    workload = f"{args.conversations} conversations x {args.turns} turns, {args.concurrency} at a time"
    print(f"\n{workload}, {args.backends} backends")
    print(f"possible: {results[0].repeated_tokens / results[0].prompt_tokens:.3f} (all of the turn before)")
    print(f"{'policy':<16}{'hit rate':>10}{'prompt tokens':>15}{'cached':>10}{'TTFT p50 ms':>13}{'seconds':>9}")
    for each in results:
        median = statistics.median(each.ttft_ms)
        print(
            f"{each.policy:<16}{each.hit_rate:>10.3f}{each.prompt_tokens:>15}{each.cached_tokens:>10}"
            f"{median:>13.0f}{each.seconds:>9.1f}"
        )


def measure(policy: str, backends: list[str], args: argparse.Namespace) -> Result:
    port = free_port()
    hosts = [backend.removeprefix("http://") for backend in backends]
    flags = ("--policy", policy, "--router-port", str(port), "--router-hosts", *hosts, "--log-level", "warning")
    with running("router.launch_router", *flags, port=port, path="/readiness") as url:
        return asyncio.run(run(policy, url, backends, args))


if __name__ == "__main__":
    main()
