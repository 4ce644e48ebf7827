"""The benchmark's live run: real processes, and the cache hits that the replay has."""

from __future__ import annotations

from benchmarks.placement_live import Live, live
from benchmarks.placement_workloads import Workload
from benchmarks.router_peers import ours
from policies.sim import EngineSpec
from policies.sim.workloads import HotSpot
from router.replay import Setup, replay

SPEC = EngineSpec(1_000_000, 100_000)


def test_a_live_run_has_the_hits_of_its_replay():
    """One engine with room for all: what is cached does not depend on the moment at which a prompt comes."""
    workload = Workload("hot", "", lambda seed: HotSpot(system_prompts=5).requests(40, seed), SPEC.prefill_tokens_per_s)
    played = live(workload, ours(), 0, Live(speed=10.0, specs=(SPEC,)))
    replayed = replay(workload.requests(0), "cache_aware", Setup((SPEC,)), 0)
    assert played.cached.sum() == replayed.cached.sum() > 0
    assert (played.prompt == replayed.prompt).all()
    assert (played.ttft > 0).all()
