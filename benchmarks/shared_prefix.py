"""Prompts that share a long head: the Engine with its prefix cache, without it, and ``transformers``, in one run.

    python -m benchmarks.shared_prefix [--prompts 32] [--shared-tokens 1000] [--new-tokens 16] [--model-path PATH]

All prompts arrive at once with the cache empty, so its gain is that of one batch: the head is computed once, and the
others wait for it. ``transformers`` completes prompts one after the other. It and the Engine without the cache get a
few of them (``--few``), and the time of all is taken to be in proportion. The Engines take turns, and medians
count. The third one is deterministic (``--enable-deterministic-inference``): what batch-invariant answers cost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch

from backend import Engine
from backend.prompt import resolve_model
from benchmarks.offline import load_transformers, prompts, run_engine, run_transformers

WITHOUT_CACHE = "Engine without the prefix cache, in proportion"
VARIANTS: dict[str, dict[str, Any]] = {
    "Engine": {},
    WITHOUT_CACHE: {"disable_radix_cache": True},
    "Engine, deterministic": {"enable_deterministic_inference": True},
}


class Cost(NamedTuple):
    """What a batch took. On a machine that others use too, CPU seconds are what to compare."""

    seconds: float
    cpu: float

    def times(self, factor: float) -> Cost:
        return Cost(self.seconds * factor, self.cpu * factor)


def cost_of(work: Callable[[], object]) -> Cost:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--shared-tokens", type=int, default=1000)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--few", type=int, default=4, help="prompts of those that compute each head anew")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeat", type=int, default=1, help="runs of each Engine; the median counts")
    args = parser.parse_args()

    costs, batch = measure_engines(args)
    model, few = load_transformers(resolve_model(args.model_path), getattr(torch, args.dtype)), batch[: args.few]
    run_transformers(model, batch[:1], 2)
    one_by_one = cost_of(lambda: run_transformers(model, few, args.new_tokens))
    costs["transformers, one by one, in proportion"] = one_by_one.times(len(batch) / len(few))

    print(
        f"{len(batch)} prompts of {args.shared_tokens} shared tokens, {args.new_tokens} new tokens each, {args.dtype}"
    )
    print(f"{'':<44}{'seconds':>9}{'CPU s':>9}{'ratio':>8}{'of CPU':>8}")
    base = costs["Engine"]
    for name, cost in costs.items():
        ratios = f"{cost.seconds / base.seconds:>7.1f}x{cost.cpu / base.cpu:>7.1f}x"
        print(f"{name:<44}{cost.seconds:>9.2f}{cost.cpu:>9.2f}{ratios}")


def measure_engines(args: argparse.Namespace) -> tuple[dict[str, Cost], list[list[int]]]:
    """Median cost of each variant, and the prompts."""
    room = (args.shared_tokens + 64 + args.new_tokens) * args.prompts
    runs: dict[str, list[Cost]] = {name: [] for name in VARIANTS}
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(
                Engine(args.model_path, dtype=args.dtype, max_total_tokens=room, max_running_requests=64, **settings)
            )
            for name, settings in VARIANTS.items()
        }
        batch = prompts(args.prompts, args.shared_tokens, engines["Engine"].tokenizer)
        for engine in engines.values():
            run_engine(engine, [batch[0][-16:]], 2)
        for _ in range(args.repeat):
            for name, engine in engines.items():
                part = batch[: args.few] if name == WITHOUT_CACHE else batch
                cost = cost_of(partial(run_engine, engine, part, args.new_tokens))
                runs[name].append(cost.times(len(batch) / len(part)))
    return {name: sorted(taken, key=lambda cost: cost.cpu)[len(taken) // 2] for name, taken in runs.items()}, batch


if __name__ == "__main__":
    main()
