"""Placement policies beside an offline oracle, on simulated engines: ``python -m benchmarks.placement [--trace FILE]``.

Three workloads: the first 2,000 requests of a conversation trace (Mooncake's, if given) at 0.85 of its rate, chats that
grow, and system prompts of very unequal fame; four engines each, with a quarter of the working set as KV room. Every
row is the mean over the seeds and, behind it, the standard deviation. ``--plots DIR`` writes the pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from policies.sim import EngineSpec, Result, SimRequest
from policies.sim.workloads import HotSpot, MultiTurn
from router.replay import NAMES, Setup, replay, row
from router.traces import at_rate, read_trace, spread

REQUESTS, ENGINES = 2000, 4
CONVERSATION_KV, CONVERSATION_RATE, BATCH_SECONDS = 5_017_500, 0.85, 3.0


@dataclass(frozen=True)
class Workload:
    name: str
    requests: Callable[[int], Sequence[SimRequest]]  # of a seed
    prefill_tokens_per_s: float
    kv_tokens: int | None = None  # None: a quarter of the working set


def workloads(trace: Path | None) -> list[Workload]:
    synthetic = [
        Workload("multi-turn", lambda seed: MultiTurn().requests(REQUESTS, seed), 4000),
        Workload("hot-spot", lambda seed: HotSpot().requests(REQUESTS, seed), 4000),
    ]
    if trace is None:
        return synthetic
    slow = at_rate(read_trace(trace, REQUESTS), CONVERSATION_RATE)

    def conversation(seed: int) -> list[SimRequest]:
        return spread(slow, BATCH_SECONDS / CONVERSATION_RATE, seed)

    return [Workload("conversation", conversation, 10_000, CONVERSATION_KV), *synthetic]


def unique_tokens(requests: Sequence[SimRequest]) -> int:
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


def measure(workload: Workload, policy: str, seeds: int) -> list[Result]:
    results = []
    for seed in range(seeds):
        requests = workload.requests(seed)
        kv_tokens = workload.kv_tokens or unique_tokens(requests) // 4
        spec = EngineSpec(kv_tokens, workload.prefill_tokens_per_s)
        results.append(replay(requests, policy, Setup((spec,) * ENGINES), seed))
    return results


def report(workload: Workload, policies: Sequence[str], seeds: int) -> dict[str, list[Result]]:
    found = {}
    best = possible(workload.requests(0))
    print(f"\n### {workload.name}: {ENGINES} engines, seeds 0 to {seeds - 1}, {best:.3f} possible\n")
    print("| policy | hit rate | TTFT mean (s) | p50 | p90 | p99 | imbalance |")
    print("|---|---|---|---|---|---|---|")
    for policy in tqdm(policies, desc=workload.name, unit="policy", disable=None, leave=False):
        found[policy] = measure(workload, policy, seeds)
        rows = np.array([row(result) for result in found[policy]])
        cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(rows.mean(0), rows.std(0), strict=True)]
        print(f"| {policy} | " + " | ".join(cells) + " |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="Mooncake's conversation trace")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--policies", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--plots", type=Path, metavar="DIR")
    args = parser.parse_args()
    if args.trace is None:
        print("### conversation: no trace given")
    for workload in workloads(args.trace):
        found = report(workload, args.policies, args.seeds)
        if args.plots:
            from router.replay_plot import plot

            plot(args.plots / f"placement-{workload.name}.png", {name: results[0] for name, results in found.items()})


if __name__ == "__main__":
    main()
