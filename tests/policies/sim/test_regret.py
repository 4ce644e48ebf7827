"""The regret gate: on seeded traffic the default policy stays near a clairvoyant that reads the engines' true state.

Bounds are for the mean over two seeds of 2,000 requests, against the best weight of the greedy oracle.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import mean

import pytest

from policies import make_policy
from policies.sim import EngineSpec, EventKind, GreedyOracle, PolicyRouter, SegmentText, SimEngine, simulate
from policies.sim.workloads import HotSpot, MultiTurn

REQUESTS, SEEDS = 2000, (0, 1)
HIT_RATE_REGRET = 0.01
TTFT_REGRET = 1.15
TRAFFIC = {"multi-turn": MultiTurn(), "hot spot": HotSpot()}
# As in the conversation trace: long prompts, few turns, one short head. A prefix computed twice costs most here:
# without the cost term for later requests the hit rate falls by 4 points and the mean TTFT grows by a third.
LONG = MultiTurn(1, 512, turns=(1, 3), user_tokens=(500, 8000), answer_tokens=(50, 600), think_seconds=40.0)
LONG_PER_ENGINE_S = 0.38  # conversations


def kv_tokens(requests):
    """A quarter of the working set."""
    sizes = {}
    for request in requests:
        sizes.update(zip(request.segments, request.sizes, strict=True))
    return sum(sizes.values()) // 4


def serve(requests, engines, policy, seed, flush_at=None, reports=EventKind.FIRST_TOKEN):
    fleet = [SimEngine(EngineSpec(kv_tokens(requests), 4000)) for _ in range(engines)]
    if isinstance(policy, float):
        router = GreedyOracle(fleet, policy, Random(seed))
    else:
        workers = [f"w{index}" for index in range(engines)]
        router = PolicyRouter(make_policy(policy, seed=seed), workers, SegmentText(), reports=reports)
    interruptions = [] if flush_at is None else [(flush_at, fleet[1].flush)]
    return simulate(requests, fleet, [router], seed=seed, interruptions=interruptions), router


@pytest.mark.parametrize("engines", [4, 8])
@pytest.mark.parametrize("traffic", [*TRAFFIC, "long prompts"])
def test_the_default_policy_is_near_the_clairvoyant(traffic, engines):
    runs = {name: [] for name in ("cache_aware", 0.0, 1.0, 3.0)}
    workload = TRAFFIC.get(traffic) or replace(LONG, conversations_per_s=LONG_PER_ENGINE_S * engines)
    for seed in SEEDS:
        requests = workload.requests(REQUESTS, seed)
        for name, results in runs.items():
            results.append(serve(requests, engines, name, seed)[0])
    hit_rate = {name: mean(result.hit_rate for result in results) for name, results in runs.items()}
    ttft = {name: mean(result.mean_ttft for result in results) for name, results in runs.items()}
    best = min((0.0, 1.0, 3.0), key=ttft.__getitem__)
    assert hit_rate["cache_aware"] >= hit_rate[best] - HIT_RATE_REGRET
    assert ttft["cache_aware"] <= ttft[best] * TTFT_REGRET


def test_a_fleet_and_its_traffic_ten_times_as_fast_are_served_alike():
    """Real seconds in a constant show here: in the first one a cold fleet was filled with copies that stayed."""
    p90 = {}
    for speed in (1, 10):
        results = []
        for seed in SEEDS:
            requests = HotSpot().requests(REQUESTS, seed)
            spec = EngineSpec(kv_tokens(requests), 4000 * speed, step_ms=10 / speed, sequence_ms=0.2 / speed)
            fleet = [SimEngine(spec) for _ in range(4)]
            router = PolicyRouter(make_policy("cache_aware", seed=seed), ["a", "b", "c", "d"], SegmentText())
            hurried = [replace(request, arrival=request.arrival / speed) for request in requests]
            results.append(simulate(hurried, fleet, [router], seed=seed).ttft_percentile(90) * speed)
        p90[speed] = mean(results)
    assert p90[10] == pytest.approx(p90[1], rel=0.15)


@pytest.mark.parametrize("reports", EventKind)
@pytest.mark.parametrize("traffic", TRAFFIC)
def test_after_a_restart_predictions_are_right_again_within_20_requests(traffic, reports):
    requests = TRAFFIC[traffic].requests(REQUESTS, 0)
    middle = requests[REQUESTS // 2].arrival
    result, _ = serve(requests, 4, "cache_aware", 0, flush_at=middle, reports=reports)
    there = (result.engine == 1) & (result.arrival >= middle)
    wrong = (result.predicted - result.cached)[there] > 64
    assert wrong.sum() > 0  # the restart was felt
    assert wrong[20:60].mean() <= 0.05


def test_a_fleet_of_unequal_speed_is_learned_without_a_flag():
    """Cold prompts on an idle fleet: who knows the speeds sends more to the fast one."""
    cold = MultiTurn(system_prompts=10**6, system_tokens=2000, turns=(1, 1), conversations_per_s=1.0)
    requests = cold.requests(600, 0)
    specs = [EngineSpec(100_000, 8000)] + [EngineSpec(100_000, 4000)] * 3
    ttft = {}
    for learn in (True, False):
        engines = [SimEngine(spec) for spec in specs]
        policy = make_policy("cache_aware", seed=0)
        router = PolicyRouter(policy, ["a", "b", "c", "d"], SegmentText(), learn_speeds=learn)
        ttft[learn] = simulate(requests, engines, [router]).mean_ttft
    assert ttft[True] <= 0.75 * ttft[False]


def test_independent_routers_place_well_before_a_large_fleet_that_publishes_its_cache():
    """Each sees few requests of each engine, lengthened by work that others sent: noise that is no speed."""
    backends, hit_rate = 128, {}
    requests = MultiTurn(system_prompts=4 * backends, conversations_per_s=0.4 * backends).requests(20 * backends, 0)
    workers = [f"w{index}" for index in range(backends)]
    for routers in (1, 4):
        fleet = [SimEngine(EngineSpec(120_000, 4000)) for _ in workers]
        processes = [
            PolicyRouter(make_policy("cache_aware", seed=seed), workers, SegmentText(), told=fleet, polled=fleet)
            for seed in range(routers)
        ]
        hit_rate[routers] = simulate(requests, fleet, processes).hit_rate
    assert hit_rate[4] >= hit_rate[1] - 0.01


@pytest.mark.parametrize("name", ["cache_aware", "least_load"])
def test_equal_seeds_give_equal_runs(name):
    requests = HotSpot().requests(300, 4)
    first, second = (serve(requests, 4, name, 7)[0] for _ in range(2))
    assert (first.ttft == second.ttft).all()
    assert (first.engine == second.engine).all()
