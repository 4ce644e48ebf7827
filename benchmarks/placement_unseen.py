"""Placement on traffic that its costs were not tuned on: other seeds, rates, fleets and shapes, in replay.

python -m benchmarks.placement_unseen --trace mooncake_conversation.jsonl.gz

A line for each workload: the default policy beside the best of the three greedy oracles (by mean time to first token),
means over the seeds; in brackets the ratio, ours to the oracle's. About four minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.placement_workloads import BATCH_SECONDS, CONVERSATION_KV, REQUESTS, unique_tokens
from policies.sim import EngineSpec, SimRequest
from policies.sim.workloads import HotSpot, MultiTurn
from router.replay import ORACLES, Setup, replay, row
from router.traces import at_rate, read_trace, spread

SEEDS = range(10, 15)
SYNTHETIC_SPEED, TRACE_SPEED = 4000.0, 10_000.0  # prompt tokens a second


class Unseen(NamedTuple):
    """``kv_tokens`` of an engine; None: a quarter of the working set of four engines."""

    name: str
    requests: Callable[[int], Sequence[SimRequest]]
    engines: int = 4
    kv_tokens: int | None = None
    prefill_tokens_per_s: float = SYNTHETIC_SPEED

    def setup(self, requests: Sequence[SimRequest]) -> Setup:
        kv_tokens = self.kv_tokens or unique_tokens(requests) // 4
        return Setup((EngineSpec(kv_tokens, self.prefill_tokens_per_s),) * self.engines)


def synthetic() -> Iterator[Unseen]:
    """Chats and hot spots unlike those of the comparison."""
    shapes: tuple[tuple[str, MultiTurn | HotSpot, int], ...] = (
        ("multi-turn, 8 engines, twice the rate", MultiTurn(conversations_per_s=3.2), 8),
        ("multi-turn, 1.4x the rate", MultiTurn(conversations_per_s=2.24), 4),
        ("multi-turn, 4 long system prompts", MultiTurn(system_prompts=4, system_tokens=6000), 4),
        ("hot spot, Zipf 0.9", HotSpot(exponent=0.9), 4),
        ("hot spot, Zipf 1.5", HotSpot(exponent=1.5), 4),
        ("hot spot, 8 engines, twice the rate", HotSpot(requests_per_s=18.0), 8),
        ("hot spot, 0.7x the rate", HotSpot(requests_per_s=6.3), 4),
        ("hot spot, 256 system prompts of 1,000 to 4,000", HotSpot(256, (1000, 4000)), 4),
    )
    for name, shape, engines in shapes:
        yield Unseen(name, lambda seed, shape=shape: shape.requests(REQUESTS, seed), engines)


def traced(trace: Path) -> Iterator[Unseen]:
    """Parts of the conversation trace, at other rates and on other fleets."""
    parts = (
        ("conversation, requests 2,000 to 4,000, 0.85x", REQUESTS, 0.85, 4, CONVERSATION_KV),
        ("the same, 0.6x", REQUESTS, 0.6, 4, CONVERSATION_KV),
        ("the same, 1.0x, 6 engines of 3M tokens", REQUESTS, 1.0, 6, 3_000_000),
    )
    for name, first, rate, engines, kv_tokens in parts:
        slow = at_rate(read_trace(trace, first + REQUESTS)[first:], rate)

        def requests(seed: int, slow: Sequence[SimRequest] = slow, rate: float = rate) -> list[SimRequest]:
            return spread(slow, BATCH_SECONDS / rate, seed)

        yield Unseen(name, requests, engines, kv_tokens, TRACE_SPEED)


def line(unseen: Unseen, seeds: Sequence[int]) -> str:
    """One row of the table."""
    figures: dict[str, list[tuple[float, ...]]] = {name: [] for name in ("cache_aware", *ORACLES)}
    for seed in seeds:
        requests = unseen.requests(seed)
        for name, rows in figures.items():
            rows.append(row(replay(requests, name, unseen.setup(requests), seed)))
    means = {name: np.mean(rows, axis=0) for name, rows in figures.items()}
    best = min(ORACLES, key=lambda name: float(means[name][1]))
    (our_hits, *ours, _), (hits, *theirs, _) = means["cache_aware"], means[best]
    cells = [f"{mine:.2f} / {other:.2f} ({mine / other:.2f})" for mine, other in zip(ours, theirs, strict=True)]
    return f"| {unseen.name} | {best} | {our_hits:.3f} / {hits:.3f} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="Mooncake's conversation trace")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    args = parser.parse_args()
    print("| workload | best greedy | hit rate | TTFT mean | p50 | p90 | p99 |\n" + "|---" * 7 + "|")
    for unseen in (*(traced(args.trace) if args.trace else ()), *synthetic()):
        print(line(unseen, args.seeds), flush=True)


if __name__ == "__main__":
    main()
