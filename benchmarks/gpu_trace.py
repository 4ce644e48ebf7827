"""What a GPU does in decode steps, from a trace: time of a step, time between steps, and time of each kernel.

Our kernels begin while the one before ends: the time of each contains what it waits, and their sum is more than a step.

python -m benchmarks.gpu_trace qwen3-0.6b --rows 1 256 [--context 512] [--set disable_cuda_graph=true]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from random import Random
from statistics import median
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity, profile

from backend import Engine
from benchmarks.gpu_offline import MODELS, ids, load, settings

STEPS = 96
LOOKED_AT = slice(-64, -32)  # of the steps: before them are prompts, and behind them some rows have ended
TO_HOST = "Memcpy DtoH"  # every step ends with its tokens' way to the host
MOST_KERNELS = 14


class Work(NamedTuple):
    """One thing that the GPU did; times in microseconds."""

    name: str
    start: float
    end: float


def decode_trace(engine: Engine, vocab: int, rows: int, context: int) -> dict[str, Any]:
    """Medians over decode steps of ``rows`` requests, in microseconds."""
    prompts = [ids(Random(i), vocab, context) for i in range(rows)]
    sampling = {"temperature": 0, "max_new_tokens": STEPS, "ignore_eos": True}
    for _ in range(2):
        engine.flush_cache()
        with profile(activities=[ProfilerActivity.CUDA]) as trace:  # the host is not slowed down by its own trace
            engine.generate(input_ids=prompts, sampling_params=sampling, progress=False)
    return {"rows": rows, "context": context} | _summary(_gpu_work(trace))


def _gpu_work(trace: profile) -> list[Work]:
    events = [event for event in trace.events() if event.device_type.name == "CUDA"]
    work = [Work(event.name, event.time_range.start, event.time_range.end) for event in events]
    return sorted(work, key=lambda each: each.start)


def _summary(work: list[Work]) -> dict[str, Any]:
    ends = [i for i, each in enumerate(work) if each.name.startswith(TO_HOST)][LOOKED_AT]
    steps = [work[a + 1 : b + 1] for a, b in itertools.pairwise(ends)]
    between = [_first_kernel(step) - work[end].end for step, end in zip(steps, ends, strict=False)]
    periods = [work[b].end - work[a].end for a, b in itertools.pairwise(ends)]
    seconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for each in work[ends[0] + 1 : ends[-1] + 1]:
        seconds[each.name] += each.end - each.start
        counts[each.name] += 1
    busy = sum(seconds.values()) / len(steps)
    return {
        "step_us": round(median(periods), 1),
        "between_us": round(median(between), 1),
        "busy_us": round(busy, 1),
        "launches": round(sum(counts.values()) / len(steps), 1),
        "kernels": [
            {"name": name[:90], "us": round(total / len(steps), 1), "count": round(counts[name] / len(steps), 1)}
            for name, total in seconds.most_common(MOST_KERNELS)
        ],
    }


def _first_kernel(step: list[Work]) -> float:
    """When the first of a step's kernels starts that does not bring its inputs."""
    return next((each.start for each in step if not each.name.startswith("Mem")), step[-1].end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 256])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="settings of the engine")
    parser.add_argument("--json", action="store_true", help="kernels within the JSON lines, not as text")
    args = parser.parse_args()
    engine, _ = load(args.model, **settings(args.set))
    for rows in args.rows:
        found = decode_trace(engine, MODELS[args.model]["vocab_size"], rows, args.context)
        kernels = found.pop("kernels")
        print(json.dumps(found | {"kernels": kernels} if args.json else found), flush=True)
        for kernel in [] if args.json else kernels:
            print(f"  {kernel['us']:9.1f} us  {kernel['count']:6.1f} x  {kernel['name']}", flush=True)


if __name__ == "__main__":
    main()
