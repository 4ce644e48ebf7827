"""The runtime's whole table on this machine's CPU: each figure beside its goal. Keeps benchmarks/results/runtime.json.

    python -m benchmarks.runtime [--only host radix token shared single]

Ratios are of runs that took turns; CPU time is of the process itself. On a machine that others use too, times are
longer than on an idle one and ratios hold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from backend.prompt import resolve_model
from benchmarks import host_cost, radix, shared_prefix, single_stream, stream_cost
from benchmarks.offline import load_transformers, run_transformers
from benchmarks.report import Row, lines, report

HOST_GOALS_MS = {1: 0.05, 32: 0.08, 256: 0.25}


def host_rows() -> list[Row]:
    """Host time of a decode step."""
    torch.set_num_threads(1)
    rows = []
    for batch, goal in HOST_GOALS_MS.items():
        best = min(host_cost.measure(batch, 1000, 300, overlap=True) for _ in range(5))
        peers = "mini-sglang {} ms, nano-vllm {} ms".format(*host_cost.KNOWN[batch])
        rows.append(Row(f"host time of a decode step, batch {batch}", best, "ms", goal, known=peers))
    return rows


def radix_rows() -> list[Row]:
    inserted, matched, evicted = radix.measure(20_000, 4096, 16, 300)
    peer = f"mini-sglang {radix.KNOWN_EVICTION_MS} ms"
    return [
        Row("radix: match and insert 4,096 tokens", inserted, "us", 100, detail=f"match a held one {matched:.0f} us"),
        Row("radix: evict one of 20,000 leaves", evicted, "us", 20, known=peer),
    ]


def shared_rows() -> list[Row]:
    """32 prompts that share 1,000 tokens: against transformers, and against itself without the cache."""
    settings = argparse.Namespace(
        model_path=None, prompts=32, shared_tokens=1000, new_tokens=16, few=4, dtype="bfloat16", repeat=1
    )
    costs, batch = shared_prefix.measure_engines(settings)
    model = load_transformers(resolve_model(None), torch.bfloat16)
    few = batch[: settings.few]
    run_transformers(model, batch[:1], 2)
    slow = shared_prefix.cost_of(lambda: run_transformers(model, few, settings.new_tokens)).times(len(batch) / len(few))
    fast, without = costs["Engine"], costs[shared_prefix.WITHOUT_CACHE]
    told = f"{fast.seconds:.1f} s, without the cache {without.seconds:.1f} s, transformers {slow.seconds:.1f} s"
    return [
        Row("shared prefix / transformers", slow.seconds / fast.seconds, "x", 5, at_least=True, detail=told),
        Row("shared prefix / no prefix cache", without.seconds / fast.seconds, "x", 2, at_least=True),
    ]


PARTS: dict[str, Callable[[], list[Row]]] = {
    "host": host_rows,
    "radix": radix_rows,
    "token": lambda: stream_cost.rows(stream_cost.parser().parse_args([])),
    "shared": shared_rows,
    "single": lambda: single_stream.rows(single_stream.parser().parse_args(["--rounds", "3"])),
}


def measure(names: Sequence[str]) -> list[Row]:
    """The rows of the parts called ``names``, told as they come."""
    threads = torch.get_num_threads()
    rows: list[Row] = []
    for name in names:
        started = time.perf_counter()
        torch.set_num_threads(threads)
        found = PARTS[name]()
        rows += found
        print(f"{name}: measured in {time.perf_counter() - started:.0f} s", *lines(found), sep="\n", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    args = parser.parse_args()
    print()
    report(measure(args.only), save_as="runtime" if args.only == list(PARTS) else None)


if __name__ == "__main__":
    main()
