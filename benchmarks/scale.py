"""Large fleets and several routers: ``python -m benchmarks.scale``.

The hit rate when 1, 4 and 16 routers share 8, 64 and 512 simulated engines: each router with what it sent itself
(alone), and with KV events and the loads that backends tell (told). How long a decision takes: benchmarks.decision.
"""

from __future__ import annotations

import argparse

from policies.sim import EngineSpec, PolicyRouter, SimEngine, simulate
from policies.sim.workloads import MultiTurn
from router.replay import Setup, make_routers

KV_TOKENS, REQUESTS_PER_ENGINE = 120_000, 60


def shared(backends: int, routers: int, told: bool) -> str:
    """A line of the table: chats at the same load per engine, however many there are."""
    traffic = MultiTurn(system_prompts=4 * backends, conversations_per_s=0.4 * backends)
    requests = traffic.requests(REQUESTS_PER_ENGINE * backends, 0)
    setup = Setup((EngineSpec(KV_TOKENS, 4000),) * backends, routers, told, polled=told)
    engines = [SimEngine(spec) for spec in setup.engines]
    processes = make_routers("cache_aware", engines, setup, 0)
    result = simulate(requests, engines, processes)
    index = max(each.policy.stats()["prefix_tree_bytes"] for each in processes if isinstance(each, PolicyRouter))
    known = "told" if told else "alone"
    times = f"{result.mean_ttft:.3f} | {result.ttft_percentile(99):.2f}"
    return f"| {backends} | {routers} | {known} | {result.hit_rate:.3f} | {times} | {index / 2**20:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--routers", type=int, nargs="+", default=[1, 4, 16])
    args = parser.parse_args()
    print("| backends | routers | know | hit rate | TTFT mean (s) | p99 | index of a router (MiB) |")
    print("|---|---|---|---|---|---|---|")
    for backends in args.backends:
        for routers in args.routers:
            for told in (False, True):
                if not (told and backends > 64):  # the model asks every engine for every request
                    print(shared(backends, routers, told), flush=True)


if __name__ == "__main__":
    main()
