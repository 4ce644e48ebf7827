"""Large fleets and several routers: ``python -m benchmarks.scale``.

First the time of one decision of cache_aware (a 4,096-token prompt; candidates included), then the hit rate when 1, 4
and 16 routers share 8, 64 and 512 simulated engines: each router with what it sent itself (alone), and with KV events
and the loads that backends tell (told).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from random import Random

from policies import LeaseBook, RateBook, RouteRequest, WorkerLoad, make_policy
from policies.cost.fleet_view import FleetView
from policies.sim import EngineSpec, PolicyRouter, SimEngine, simulate
from policies.sim.workloads import MultiTurn
from router.replay import Setup, make_routers

TOKENS, BYTES_PER_TOKEN, HEADS = 4096, 4, 50
KV_TOKENS, REQUESTS_PER_ENGINE = 120_000, 60


def decision_us(workers: int, decisions: int = 400) -> float:
    """Median of candidates + choose, on a fleet with work in flight and prefixes on every worker."""
    rng = Random(0)
    names = [f"http://10.0.{index // 250}.{index % 250}:30000" for index in range(workers)]
    index = {name: position for position, name in enumerate(names)}
    policy, leases, speeds = make_policy("cache_aware", seed=0), LeaseBook(), RateBook()
    heads = [rng.randbytes(TOKENS * BYTES_PER_TOKEN // 2) for _ in range(HEADS)]
    for step in range(workers * 20):
        now, name = step * 0.01, rng.choice(names)
        prompt = RouteRequest(rng.choice(heads) + rng.randbytes(TOKENS * BYTES_PER_TOKEN // 2), TOKENS)
        policy.record(prompt, name, now)
        lease = leases.open(name, rng.randrange(TOKENS), now)
        if rng.random() < 0.9:
            lease.first_token(now)
            speeds.observe(name, TOKENS, WorkerLoad(), rng.uniform(300, 500))
    times = []
    gc.disable()
    for step in range(decisions):
        prompt = RouteRequest(rng.choice(heads) + rng.randbytes(TOKENS * BYTES_PER_TOKEN // 2), TOKENS)
        start = time.perf_counter()
        view = FleetView(names, index, leases, speeds, 1e4 + step)
        policy.choose(prompt, list(view) if workers <= 64 else view, 1e4 + step)
        times.append((time.perf_counter() - start) * 1e6)
    gc.enable()
    return statistics.median(times)


def shared(backends: int, routers: int, told: bool) -> str:
    """A line of the table: chats at the same load per engine, however many there are."""
    traffic = MultiTurn(system_prompts=4 * backends, conversations_per_s=0.4 * backends)
    requests = traffic.requests(REQUESTS_PER_ENGINE * backends, 0)
    setup = Setup((EngineSpec(KV_TOKENS, 4000),) * backends, routers, told)
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
    parser.add_argument("--no-fleets", action="store_true", help="only the time of a decision")
    args = parser.parse_args()
    print("| backends | decision, median (us) |\n|---|---|")
    for backends in args.backends:
        print(f"| {backends} | {decision_us(backends):.0f} |", flush=True)
    if args.no_fleets:
        return
    print("\n| backends | routers | know | hit rate | TTFT mean (s) | p99 | index of a router (MiB) |")
    print("|---|---|---|---|---|---|---|")
    for backends in args.backends:
        for routers in args.routers:
            for told in (False, True):
                if not (told and backends > 64):  # the model asks every engine for every request
                    print(shared(backends, routers, told), flush=True)


if __name__ == "__main__":
    main()
