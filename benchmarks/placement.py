"""Placement: this router beside others over HTTP, and its policies beside an offline oracle in replay.

    make bench-placement TRACE=mooncake_conversation.jsonl.gz     # everything, about 23 minutes
    python -m benchmarks.placement --trace FILE --essential       # one seed of the comparison, about 8 minutes
    python -m benchmarks.placement --from benchmarks/results/placement.json --plots docs --page docs/placement.md

Live: simulated engines speak HTTP, sglang-router, vllm-router, smg and Warmlane stand in front of them in turn, all
with their policy cache_aware and no other flag, and time is compressed. Replay: the same engines and policies without
HTTP. Times are in simulated seconds. ``--plots DIR`` writes the pictures, ``--page FILE`` puts the report between the
marks of a page. It needs two idle cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from benchmarks import placement_studies as studies
from benchmarks import router_peers
from benchmarks.placement_client import TrafficError
from benchmarks.placement_live import Live, live
from benchmarks.placement_results import LIVE, REPLAY, Report, Run, text
from benchmarks.placement_studies import Work
from benchmarks.placement_workloads import ENGINES, REQUESTS, TRACE, Workload, possible, workloads
from benchmarks.router_peers import Peer
from router.replay import NAMES, Setup, replay
from router.traces import TraceError

BEGIN, END = "<!-- report: begin -->", "<!-- report: end -->"
RESULTS = Path(__file__).parent / "results" / "placement.json"
PEERS = {"sglang-router": router_peers.sglang_router, "vllm-router": router_peers.vllm_router, "smg": router_peers.smg}
BY_SEVERAL = (TRACE, "multi-turn")  # through several routers live; the others in replay
SLOW = {"vllm-router": 6.0}  # most simulated seconds in one: every engine tokenises each prompt for it first
VERSIONS = "sglang-router 0.3.2, vllm-router 0.1.17, smg 1.13.0"


def compared(workload: Workload, peers: Sequence[Peer], seeds: int) -> Iterator[Work]:
    """Each router on each seed, in turn; slow ones on the first seed."""
    for seed in range(seeds):
        for peer in peers if seed == 0 else [peer for peer in peers if peer.name not in SLOW]:

            def played(report: Report, peer: Peer = peer, seed: int = seed) -> None:
                setup = Live(speed=min(workload.speed, SLOW.get(peer.name, workload.speed)))
                report.runs.append(Run.of(workload.name, LIVE, peer.name, seed, live(workload, peer, seed, setup)))

            yield f"live {workload.name}, {peer.name}, seed {seed}", played


def replayed(workload: Workload, policies: Sequence[str], seeds: int) -> Iterator[Work]:
    """Each policy and oracle on all seeds."""
    for policy in policies:

        def run(report: Report, policy: str = policy) -> None:
            for seed in range(seeds):
                requests = workload.requests(seed)
                result = replay(requests, policy, Setup((workload.spec(requests),) * ENGINES), seed)
                report.runs.append(Run.of(workload.name, REPLAY, policy, seed, result))

        yield f"replay {workload.name}, {policy}", run


def plan(args: argparse.Namespace) -> Iterator[Work]:
    """Everything that is to be done, the essential first."""
    traffic = workloads(args.trace, args.requests)
    names = args.peers if args.peers is not None else [name for name in PEERS if not (args.essential and name in SLOW)]
    peers = [] if args.no_live else [router_peers.ours(), *(PEERS[name]() for name in names)]
    for workload in traffic:
        yield from replayed(workload, args.policies, args.seeds)
    for workload in traffic:
        yield from compared(workload, peers, 1 if args.essential else args.live_seeds)
    if args.essential:
        return
    shared = [router_peers.ours(workers=4)] if args.workers else []
    for workload in traffic:
        yield from studies.several_routers(workload, 2, bool(peers) and workload.name in BY_SEVERAL, shared)
    yield from studies.unequal(args.seeds, bool(peers))
    yield from studies.lost_cache(traffic[-1], args.seeds, bool(peers))


def about(args: argparse.Namespace) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "routers": f"Warmlane {revision()}" + ("" if args.no_live else f" beside {VERSIONS}"),
        "trace": args.trace.name if args.trace else "none",
        "times": "simulated seconds; medians, in brackets the least and the most of the seeds",
    }


def cpu_model() -> str:
    """The CPU's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def revision() -> str:
    """The version of this checkout."""
    from importlib.metadata import version

    return version("warmlane")


def run(args: argparse.Namespace) -> Report:
    """All of the plan; what is known is saved after each part."""
    report = Report(about(args))
    for workload in workloads(args.trace, args.requests):
        report.possible[workload.name] = possible(workload.requests(0))
    works = list(plan(args))
    bar = tqdm(works, unit="part", disable=None)
    for name, work in bar:
        bar.set_description(name or "judging")
        work(report)
        report.save(args.output)
    return report


def write_between_marks(page: Path, said: str) -> None:
    """Replaces what stands between the marks. Raises ``ValueError`` for a page without them."""
    old = page.read_text(encoding="utf-8")
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n\n{said}\n\n{END}{tail}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    try:
        report = Report.load(args.source) if args.source else run(args)
        show(report, args)
    except (TraceError, TrafficError, OSError, ValueError) as error:
        sys.exit(f"benchmarks.placement: {error}")


def show(report: Report, args: argparse.Namespace) -> None:
    """The report on the screen, on its page, and as pictures."""
    said = text(report, () if TRACE in report.possible else (TRACE,))
    print(said)
    if args.page:
        write_between_marks(args.page, said)
    if args.plots:
        from benchmarks.placement_plots import plots

        for path in plots(report, args.plots):
            print(f"wrote {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="Mooncake's conversation trace")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="print a saved report; run nothing")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE", help="where the report is saved")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the pictures there; needs matplotlib")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the report into a page, between its marks")
    parser.add_argument("--essential", action="store_true", help="only the comparison, one live seed")
    parser.add_argument("--no-live", action="store_true", help="only the replay")
    parser.add_argument("--no-workers", dest="workers", action="store_false", help="no run with --workers 4")
    parser.add_argument("--seeds", type=int, default=5, help="in replay")
    parser.add_argument("--live-seeds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each workload")
    parser.add_argument("--policies", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="all; the essential ones are those that are fast")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # engines and routers are stopped on the way out
    main()
