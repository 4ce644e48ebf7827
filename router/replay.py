"""Replays a trace through placement policies on simulated engines: ``python -m router.replay TRACE``.

    python -m router.replay trace.jsonl.gz --policy cache_aware --policy round_robin --backends 8 --kv-tokens 2000000

TRACE is a JSONL file of Mooncake's or Bailian's form or one that ``--record-trace`` wrote (``.gz`` is fine). The
policies are the router's own; ``greedy-1`` is an offline oracle that sees the engines' true state and counts a
request's own uncached tokens once (``greedy-0``, ``greedy-3``: not at all, three times). Times are those of the model,
in seconds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random

from tqdm import tqdm

from policies import POLICY_NAMES, make_policy
from policies.sim import EngineSpec, GreedyOracle, PolicyRouter, Result, SegmentText, SimEngine, SimRequest, simulate
from policies.sim.routing import SimRouter
from router.traces import TraceError, at_rate, read_trace, spread

ORACLES = {"greedy-0": 0.0, "greedy-1": 1.0, "greedy-3": 3.0}
NAMES = (*POLICY_NAMES, *ORACLES)
DEFAULT_KV_TOKENS = 1_000_000
COLUMNS = ("hit rate", "TTFT mean", "p50", "p90", "p99", "imbalance")


@dataclass(frozen=True, slots=True)
class Setup:
    """The fleet that a trace is replayed on."""

    engines: tuple[EngineSpec, ...]
    routers: int = 1
    told: bool = False  # backends publish KV events
    polled: bool = False  # backends answer load polls


def replay(
    requests: Sequence[SimRequest], name: str, setup: Setup, seed: int, tick: Callable[[], None] | None = None
) -> Result:
    """One policy or oracle over ``requests``. Raises ``ValueError`` for a request that fits into no engine."""
    engines = [SimEngine(spec) for spec in setup.engines]
    return simulate(requests, engines, make_routers(name, engines, setup, seed), seed=seed, tick=tick)


def make_routers(name: str, engines: Sequence[SimEngine], setup: Setup, seed: int) -> list[SimRouter]:
    """The routers in front of ``engines``, each with a policy of its own."""
    if name in ORACLES:
        return [GreedyOracle(engines, ORACLES[name], Random(seed))]
    workers = [f"http://engine-{index}:30000" for index in range(len(engines))]
    kv_tokens = [spec.kv_tokens for spec in setup.engines]
    told, polled = engines if setup.told else (), engines if setup.polled else ()
    return [
        PolicyRouter(
            make_policy(name, seed=seed + index),
            workers,
            SegmentText(),
            kv_tokens=kv_tokens,
            told=told,
            polled=polled,
        )
        for index in range(setup.routers)
    ]


def row(result: Result) -> tuple[float, ...]:
    """The numbers of one run, in the order of :data:`COLUMNS`."""
    percentiles = [result.ttft_percentile(percent) for percent in (50, 90, 99)]
    return (result.hit_rate, result.mean_ttft, *percentiles, result.imbalance)


def table(rows: dict[str, tuple[float, ...]]) -> str:
    """An aligned text table."""
    width = max(len(name) for name in (*rows, "policy"))
    lines = [f"{'policy':<{width}}" + "".join(f"{column:>11}" for column in COLUMNS)]
    lines += [f"{name:<{width}}" + "".join(f"{value:>11.3f}" for value in values) for name, values in rows.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    if args.plot:
        _check_plot(args.plot)
    try:
        requests = read_trace(args.trace, args.requests)
    except TraceError as error:
        sys.exit(f"router.replay: {error}")
    requests = spread(at_rate(requests, args.rate), args.spread / args.rate, args.seed)
    spec = EngineSpec(args.kv_tokens, args.prefill_tokens_per_s, args.chunk_tokens)
    longest = max(request.prompt_tokens + request.output_tokens for request in requests)
    if longest > spec.kv_tokens:
        sys.exit(f"router.replay: a request of {longest} tokens does not fit into --kv-tokens {spec.kv_tokens}")
    setup = Setup((spec,) * args.backends, args.routers, args.told, args.polled)
    results: dict[str, Result] = {}
    for name in args.policy or NAMES:
        with tqdm(total=len(requests), desc=name, unit="request", disable=None, leave=False) as bar:
            results[name] = replay(requests, name, setup, args.seed, bar.update)
    print(f"{len(requests)} requests, {args.backends} backends with {spec.kv_tokens} KV tokens, seed {args.seed}")
    print(table({name: row(result) for name, result in results.items()}))
    if args.plot:
        _plot(args.plot, results)


def _check_plot(path: Path) -> None:
    """Before minutes of work: can the picture be drawn, and written there?"""
    if path.suffix != ".png":
        sys.exit(f"router.replay: --plot writes a .png file, got {path}")
    if not path.parent.is_dir():
        sys.exit(f"router.replay: --plot {path}: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        sys.exit("router.replay: --plot needs matplotlib: pip install matplotlib")


def _plot(path: Path, results: dict[str, Result]) -> None:
    from router.replay_plot import plot

    try:
        plot(path, results)
    except OSError as error:
        sys.exit(f"router.replay: cannot write {path}: {error}")
    print(f"wrote {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m router.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path, metavar="TRACE")
    parser.add_argument("--policy", action="append", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--backends", type=_positive, default=4)
    parser.add_argument("--routers", type=_positive, default=1, help="router processes that share the fleet")
    parser.add_argument("--told", action="store_true", help="backends publish KV events")
    parser.add_argument("--polled", action="store_true", help="backends tell their loads")
    parser.add_argument("--kv-tokens", type=_positive, default=DEFAULT_KV_TOKENS, help="KV room of each backend")
    parser.add_argument("--prefill-tokens-per-s", type=_speed, default=10_000.0)
    parser.add_argument("--chunk-tokens", type=_positive, default=4096)
    parser.add_argument("--requests", type=_positive, help="only the first ones")
    parser.add_argument("--rate", type=_speed, default=1.0, help="speed of the arrivals")
    parser.add_argument(
        "--spread", type=_seconds, default=0.0, metavar="SECONDS", help="of arrivals that come in batches"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="TTFT distribution and hit rate over time")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _speed(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {value}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, got {value}")
    return value


if __name__ == "__main__":
    main()
