"""Three questions beside the comparison: unequal engines, a cache lost in the middle of a run, several routers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import mean

from benchmarks.placement_live import Live, live
from benchmarks.placement_results import LIVE, OUR_POLICY, OURS, REPLAY, Report, Run
from benchmarks.placement_workloads import ENGINES, Workload
from benchmarks.router_peers import Peer, ours
from policies import make_policy
from policies.sim import EngineSpec, PolicyRouter, Result, SegmentText, SimEngine, SimRequest, simulate
from policies.sim.workloads import MultiTurn
from router.replay import Setup, make_routers, replay

UNEQUAL = "unequal engines"
SPEED, FAST = 4000.0, 8000.0  # prompt tokens a second; one of the engines is fast
COLD_PROMPTS, COLD_TOKENS, COLD_SPEED = 300, 2000, 8.0
OFF_TOKENS = 64  # a prediction this far above the truth is wrong
WINDOW, WRONG_SHARE = 40, 0.05  # predictions are right again when so few of the next ones are wrong

Work = tuple[str, Callable[[Report], None]]  # what it is, and how it is done


def unequal(seeds: int, with_live: bool) -> Iterator[Work]:
    """Cold prompts on a nearly idle fleet with one fast engine; the policy with and without its learned speeds."""
    for learns in (True, False):
        name = "" if learns else ", equal speeds assumed"

        def replayed(report: Report, learns: bool = learns, name: str = name) -> None:
            report.runs += [
                Run.of(UNEQUAL, REPLAY, OUR_POLICY + name, seed, _unequal_replay(seed, learns)) for seed in range(seeds)
            ]

        yield f"replay {UNEQUAL}{name}", replayed
        if with_live:

            def played(report: Report, learns: bool = learns, name: str = name) -> None:
                workload = Workload(UNEQUAL, "", cold_prompts, SPEED, 100_000, COLD_SPEED)
                peer = ours() if learns else equal_speeds(workload.speed)
                report.runs.append(Run.of(UNEQUAL, LIVE, OURS + name, 0, live(workload, peer, 0, Live(specs=_specs()))))

            yield f"live {UNEQUAL}{name}", played
    yield "", _judge_unequal


def cold_prompts(seed: int) -> Sequence[SimRequest]:
    """Prompts that share nothing, at a tenth of what the fleet can compute."""
    traffic = MultiTurn(system_prompts=10**6, system_tokens=COLD_TOKENS, turns=(1, 1), conversations_per_s=1.0)
    return traffic.requests(COLD_PROMPTS, seed)


def equal_speeds(speed: float) -> Peer:
    """Our router without learned speeds; it knows the mean one."""
    fleet = ((ENGINES - 1) * SPEED + FAST) / ENGINES

    def command(port: int, backends: Sequence[int]) -> list[str]:
        urls = [f"http://127.0.0.1:{backend}" for backend in backends]
        return [
            sys.executable, "-m", "benchmarks.placement_equal_speeds", "--port", str(port),
            "--ms-per-token", str(1000.0 / fleet / speed), *urls,
        ]  # fmt: skip

    return Peer("warmlane, equal speeds assumed", command)


def _specs() -> tuple[EngineSpec, ...]:
    return (EngineSpec(100_000, FAST), *[EngineSpec(100_000, SPEED)] * (ENGINES - 1))


def _unequal_replay(seed: int, learns: bool) -> Result:
    engines = [SimEngine(spec) for spec in _specs()]
    workers = [f"http://engine-{index}:30000" for index in range(len(engines))]
    router = PolicyRouter(make_policy(OUR_POLICY, seed=seed), workers, SegmentText(), learn_speeds=learns)
    return simulate(cold_prompts(seed), engines, [router])


def _judge_unequal(report: Report) -> None:
    for where, who in ((LIVE, OURS), (REPLAY, OUR_POLICY)):
        if report.of(UNEQUAL, where, who):
            learned = report.mean(UNEQUAL, where, who, "mean")
            assumed = report.mean(UNEQUAL, where, who + ", equal speeds assumed", "mean")
            line = f"{learned:.3f} s, {assumed:.3f} s when equal speeds are assumed: {1 - learned / assumed:.0%} lower"
            report.findings.append(f"{UNEQUAL}, {where}: mean TTFT {line}")


def lost_cache(workload: Workload, seeds: int, with_live: bool) -> Iterator[Work]:
    """An engine loses its cache in the middle of the run, and nobody says so."""

    def middle(seed: int) -> float:
        requests = workload.requests(seed)
        return requests[len(requests) // 2].arrival

    def replayed(report: Report) -> None:
        counts = [until_right(_replay_with_flush(workload, seed, middle(seed)), middle(seed)) for seed in range(seeds)]
        _note_recovery(report, workload, REPLAY, counts)

    yield f"replay {workload.name}, a cache lost", replayed
    if with_live:

        def played(report: Report) -> None:
            for heads, told in ((True, "told in the head of an answer"), (False, "told at its end")):
                result = live(workload, ours(), 0, Live(flush_at=middle(0), heads=heads))
                _note_recovery(report, workload, f"{LIVE}, cached tokens {told}", [until_right(result, middle(0))])

        yield f"live {workload.name}, a cache lost", played


def _replay_with_flush(workload: Workload, seed: int, time: float) -> Result:
    requests = workload.requests(seed)
    setup = Setup((workload.spec(requests),) * ENGINES)
    engines = [SimEngine(spec) for spec in setup.engines]
    routers = make_routers(OUR_POLICY, engines, setup, seed)
    return simulate(requests, engines, routers, seed=seed, interruptions=[(time, engines[1].flush)])


def until_right(result: Result, lost_at: float, engine: int = 1) -> int | None:
    """Requests to ``engine`` after it lost its cache, until its predictions are right again; None: not in this run."""
    there = (result.engine == engine) & (result.arrival >= lost_at)
    wrong = (result.predicted - result.cached)[there] > OFF_TOKENS
    for count in range(len(wrong)):
        if wrong[count : count + WINDOW].mean() <= WRONG_SHARE and not wrong[count]:
            return count
    return None


def _note_recovery(report: Report, workload: Workload, where: str, counts: Sequence[int | None]) -> None:
    said = ", ".join("not in this run" if count is None else str(count) for count in counts)
    report.findings.append(
        f"{workload.name}, {where}: after a lost cache, requests to that engine until predictions are right: {said}"
    )


def several_routers(workload: Workload, seeds: int, with_live: bool, shared: Sequence[Peer]) -> Iterator[Work]:
    """Four routers asked in turn, which know the engines' loads and nothing else of each other; in replay also with KV
    events; and ``shared``: processes of one router.
    """
    apart = f"{OURS}, 4 routers apart"

    def replayed(report: Report) -> None:
        for told, name in ((False, "4 routers apart"), (True, "4 routers with KV events")):
            for seed in range(seeds):
                requests = workload.requests(seed)
                setup = Setup((workload.spec(requests),) * ENGINES, 4, told, polled=True)
                result = replay(requests, OUR_POLICY, setup, seed)
                report.runs.append(Run.of(workload.name, REPLAY, f"{OUR_POLICY}, {name}", seed, result))
        _compare(report, workload, REPLAY, OUR_POLICY)

    yield f"replay {workload.name}, several routers", replayed
    if with_live:

        def played(report: Report) -> None:
            result = live(workload, ours(), 0, Live(routers=4))
            report.runs.append(Run.of(workload.name, LIVE, apart, 0, result))
            for peer in shared:
                report.runs.append(Run.of(workload.name, LIVE, peer.name, 0, live(workload, peer, 0)))
            _compare(report, workload, LIVE, OURS)

        yield f"live {workload.name}, several routers", played


def _compare(report: Report, workload: Workload, where: str, one: str) -> None:
    """Hit rates of many routers against one on the same seeds, in points."""
    alone = {run.seed: run.figures["hit_rate"] for run in report.of(workload.name, where, one)}
    for who in report.who(workload.name, where):
        runs = [run for run in report.of(workload.name, where, who) if run.seed in alone]
        if who != one and who.startswith(one) and runs:
            points = 100 * mean(run.figures["hit_rate"] - alone[run.seed] for run in runs)
            report.findings.append(f"{workload.name}, {where}: hit rate of {who}: {points:+.1f} points against one")
