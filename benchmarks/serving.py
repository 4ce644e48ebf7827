"""Serving over HTTP: requests arrive at random, answers are streamed, and what each client saw is summed up.

    python -m benchmarks.serving --url http://127.0.0.1:30000 --rate 4 --requests 200 [--dataset shared]
        [--slo-ttft-ms 500 --slo-tpot-ms 50] [--output FILE.json] [--plot FILE.png]

Arrivals are Poisson at ``--rate`` a second (0: all at once), or ``--concurrency`` clients that ask one after the other.
TTFT is from sending to the first token, TPOT the mean time per token behind it, ITL the gaps between events, E2E the
whole. Goodput counts the requests that kept to both limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.serving_data import DATASETS, Ask, load
from benchmarks.serving_table import plot, summary, table


@dataclass(slots=True)
class Seen:
    """What one client saw; seconds since the run's beginning."""

    sent: float
    events: list[float] = field(default_factory=list)  # when tokens came
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    ended: float = 0.0
    error: str = ""


async def arrivals(asks: Sequence[Ask], rate: float, chance: random.Random) -> AsyncIterator[Ask]:
    """Each ask at its time: intervals are exponential with the mean ``1 / rate``; all at once when it is 0."""
    due = time.perf_counter()
    for ask in asks:
        yield ask
        if rate > 0:
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def one(session: aiohttp.ClientSession, url: str, ask: Ask, began: float) -> Seen:
    """Ask, and note when what came."""
    seen = Seen(sent=time.perf_counter() - began)
    body = {**ask.body(), "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with session.post(f"{url}{ask.path}", json=body) as answer:
            if answer.status != 200:
                seen.error = f"status {answer.status}: {(await answer.text())[:200]}"
                return seen
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    _event(seen, json.loads(line[6:]), time.perf_counter() - began)
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.error = f"{type(error).__name__}: {error}"
    finally:
        seen.ended = time.perf_counter() - began
    return seen


def _event(seen: Seen, event: dict[str, Any], now: float) -> None:
    if "error" in event:
        seen.error = str(event["error"])
    if usage := event.get("usage"):
        seen.tokens, seen.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
        seen.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    choice = next(iter(event.get("choices") or []), {})
    if choice.get("text") or (choice.get("delta") or {}).get("content"):
        seen.events.append(now)


async def run(arguments: argparse.Namespace, asks: Sequence[Ask]) -> list[Seen]:
    """Every request of the run, in order of arrival."""
    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=arguments.timeout)
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, connector=connector))
        began = time.perf_counter()
        if arguments.concurrency:
            return await _closed(session, arguments, asks, began)
        tasks = [
            asyncio.create_task(one(session, arguments.url, ask, began))
            async for ask in arrivals(asks, arguments.rate, random.Random(arguments.seed))
        ]
        return list(await asyncio.gather(*tasks))


async def _closed(
    session: aiohttp.ClientSession, arguments: argparse.Namespace, asks: Sequence[Ask], began: float
) -> list[Seen]:
    """As many clients as ``--concurrency``, each with one request at a time."""
    left = iter(list(asks))
    seen: list[Seen] = []

    async def client() -> None:
        for ask in left:
            seen.append(await one(session, arguments.url, ask, began))

    await asyncio.gather(*(client() for _ in range(arguments.concurrency)))
    return sorted(seen, key=lambda each: each.sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of a backend or a router")
    parser.add_argument("--model", default="default")
    parser.add_argument("--dataset", default="random", choices=DATASETS)
    parser.add_argument("--file", type=Path, help="JSONL for the dataset 'file': {prompt or messages, max_tokens}")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.0, help="arrivals a second; 0: all at once")
    parser.add_argument("--concurrency", type=int, default=0, help="instead of a rate: clients that wait for answers")
    parser.add_argument("--input-len", type=int, default=512, help="words of a prompt")
    parser.add_argument("--output-len", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds without a byte")
    parser.add_argument("--slo-ttft-ms", type=float, default=1000.0)
    parser.add_argument("--slo-tpot-ms", type=float, default=100.0)
    parser.add_argument("--output", type=Path, help="JSON with every request")
    parser.add_argument("--plot", type=Path, help="distributions as a picture (needs matplotlib)")
    arguments = parser.parse_args()
    if arguments.dataset == "file" and arguments.file is None:
        parser.error("--dataset file needs --file")
    asks = load(arguments.dataset, arguments)
    seen = asyncio.run(run(arguments, asks))
    found = summary(seen, arguments.slo_ttft_ms / 1000, arguments.slo_tpot_ms / 1000)
    print(table(found))
    for error, count in sorted(found["errors"].items()):
        print(f"{count} x {error}")
    if arguments.output is not None:
        settings = {name: str(value) for name, value in vars(arguments).items()}
        report = {"settings": settings, "summary": found, "requests": [asdict(each) for each in seen]}
        arguments.output.write_text(json.dumps(report, indent=1, default=np.ndarray.tolist))
    if arguments.plot is not None:
        plot(seen, arguments.plot)


if __name__ == "__main__":
    main()
