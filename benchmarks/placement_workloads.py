"""The traffic that routers are compared on: requests by seed, the engines they meet, and their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sim_text import Characters, line
from policies.sim import EngineSpec, SimRequest
from policies.sim.workloads import HotSpot, MultiTurn
from router.traces import at_rate, read_trace, spread

REQUESTS, ENGINES = 2000, 4
CONVERSATION_KV, CONVERSATION_RATE, BATCH_SECONDS = 5_017_500, 0.85, 3.0
TRACE = "conversation"  # the workload that needs a file


@dataclass(frozen=True)
class Workload:
    """``speed``: simulated seconds in a real one when it runs over HTTP.

    A router's own milliseconds are multiplied by it: the shorter the times to first token, the lower it must be.
    """

    name: str
    about: str
    requests: Callable[[int], Sequence[SimRequest]]  # of a seed
    prefill_tokens_per_s: float
    kv_tokens: int | None = None  # of an engine; None: a quarter of the working set
    speed: float = 10.0

    def spec(self, requests: Sequence[SimRequest]) -> EngineSpec:
        """The engines for ``requests``."""
        return EngineSpec(self.kv_tokens or unique_tokens(requests) // 4, self.prefill_tokens_per_s)


def workloads(trace: Path | None, number: int = REQUESTS) -> list[Workload]:
    """The conversation trace, if there is one, and two synthetic ones; ``number`` requests each."""
    synthetic = [
        Workload(
            "multi-turn",
            "multi-turn chat under shared system prompts",
            lambda seed: MultiTurn().requests(number, seed),
            4000,
            speed=5.0,
        ),
        Workload(
            "hot-spot",
            "hot spot: system prompts by Zipf's law",
            lambda seed: HotSpot().requests(number, seed),
            4000,
        ),
    ]
    if trace is None:
        return synthetic
    slow = at_rate(read_trace(trace, number), CONVERSATION_RATE)

    def conversation(seed: int) -> list[SimRequest]:
        return spread(slow, BATCH_SECONDS / CONVERSATION_RATE, seed)

    about = f"the trace's first {len(slow)} requests at {CONVERSATION_RATE} of its rate"
    return [Workload(TRACE, about, conversation, 10_000, CONVERSATION_KV, speed=18.0), *synthetic]


def prompt_text(request: SimRequest) -> str:
    """The prompt with the same shared prefixes: a line for each segment."""
    pairs = zip(request.segments, request.sizes, strict=True)
    return "".join([line(segment, size * Characters.CHARACTERS) for segment, size in pairs])


def unique_tokens(requests: Sequence[SimRequest]) -> int:
    """The working set: every segment once."""
    sizes: dict[int, int] = {}
    for request in requests:
        sizes.update(zip(request.segments, request.sizes, strict=True))
    return sum(sizes.values())


def possible(requests: Sequence[SimRequest]) -> float:
    """The hit rate of one engine with an endless cache and no queue."""
    seen: set[int] = set()
    cached = 0
    for request in requests:
        for segment, size in zip(request.segments, request.sizes, strict=True):
            if segment not in seen:
                break
            cached += size
        seen.update(request.segments)
        if request.answer is not None:
            seen.add(request.answer)
    return cached / sum(request.prompt_tokens for request in requests)
