"""Large fleets and several routers: ``python -m benchmarks.scale --plot docs/scale.png``.

The hit rate when 1, 4 and 16 routers share 8, 64 and 512 simulated engines: each router with what it sent itself
(alone), with the loads that backends tell (loads), and with KV events too (events). How long a decision takes:
benchmarks.decision.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from policies.sim import EngineSpec, PolicyRouter, Result, SimEngine, simulate
from policies.sim.workloads import MultiTurn
from router.replay import Setup, make_routers

KV_TOKENS, REQUESTS_PER_ENGINE = 120_000, 60


KNOWS = {"alone": (False, False), "loads": (False, True), "events": (True, True)}  # (KV events, load polls)
STYLES = {"alone": ":x", "loads": "--s", "events": "-o"}


class Row(NamedTuple):
    """One fleet."""

    backends: int
    routers: int
    knows: str
    result: Result
    index_bytes: float  # of the largest router

    def __str__(self) -> str:
        result = self.result
        times = f"{result.mean_ttft:.3f} | {result.ttft_percentile(99):.2f}"
        return (
            f"| {self.backends} | {self.routers} | {self.knows} | {result.hit_rate:.3f} | {times} "
            f"| {self.index_bytes / 2**20:.0f} |"
        )


def shared(backends: int, routers: int, knows: str) -> Row:
    """Chats at the same load per engine, however many there are."""
    traffic = MultiTurn(system_prompts=4 * backends, conversations_per_s=0.4 * backends)
    requests = traffic.requests(REQUESTS_PER_ENGINE * backends, 0)
    setup = Setup((EngineSpec(KV_TOKENS, 4000),) * backends, routers, *KNOWS[knows])
    engines = [SimEngine(spec) for spec in setup.engines]
    processes = make_routers("cache_aware", engines, setup, 0)
    result = simulate(requests, engines, processes)
    index = max(each.policy.stats()["prefix_tree_bytes"] for each in processes if isinstance(each, PolicyRouter))
    return Row(backends, routers, knows, result, index)


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Hit rate and mean time to first token over the number of routers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for backends in dict.fromkeys(row.backends for row in rows):
        for knows, style in STYLES.items():
            line = [row for row in rows if (row.backends, row.knows) == (backends, knows)]
            routers = [row.routers for row in line]
            label = f"{backends} backends, {knows}"
            left.plot(routers, [row.result.hit_rate for row in line], style, label=label)
            right.plot(routers, [row.result.mean_ttft for row in line], style, label=label)
    for axes, title in ((left, "hit rate"), (right, "mean time to first token (s)")):
        axes.set(xlabel="routers", title=title, xscale="log", xticks=[1, 4, 16], xticklabels=["1", "4", "16"])
        axes.grid(alpha=0.3)
    right.set_yscale("log")
    left.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--routers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    args = parser.parse_args()
    print("| backends | routers | know | hit rate | TTFT mean (s) | p99 | index of a router (MiB) |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for backends, routers, knows in itertools.product(args.backends, args.routers, KNOWS):
        rows.append(shared(backends, routers, knows))
        print(rows[-1], flush=True)
    if args.plot:
        plot(args.plot, rows)


if __name__ == "__main__":
    main()
