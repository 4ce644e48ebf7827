"""What the host spends on a decode step: scheduling, the step's arrays, and taking in the results. No model runs.

    python -m benchmarks.host_cost [--batch 1 32 256] [--context 1000]

A step is: choose the batch, build the arrays that the device would read, and settle the tokens of the step before. The
figure is the median over steps, of the fastest of the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from backend.messages import NewRequest, ToScheduler
from backend.runner.sampling_plan import SamplingPlanner
from backend.runner.step_inputs import build_inputs
from backend.sampling_params import SamplingParams
from backend.scheduler.batch import StepBatch
from backend.scheduler.limits import SchedulerLimits, make_rows
from backend.scheduler.loop import Scheduler
from backend.scheduler.slots import Slots

PAGE = 16
VOCAB = 151_936
KNOWN = {1: (0.07, 0.02), 32: (0.63, 0.08), 256: (5.75, 0.59)}  # mini-sglang, nano-vllm: ms, context 1,000


class InstantStep:
    def __init__(self, rows: int) -> None:
        self._tokens = np.full(rows, 5, np.int32)

    def tokens(self) -> NDArray[np.int32]:
        return self._tokens


class InstantRunner:
    """Builds what a real runner builds, and answers at once."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._planner = SamplingPlanner(VOCAB, self._device)

    def launch(self, batch: StepBatch, slots: Slots) -> InstantStep:
        build_inputs(batch, slots, self._planner, self._device)
        return InstantStep(len(batch.rows))


def measure(batch: int, context: int, steps: int, overlap: bool) -> float:
    """Median milliseconds per decode step."""
    length = context + steps + 64
    limits = SchedulerLimits(
        max_running_requests=batch,
        max_queued_requests=None,
        context_length=length,
        num_pages=batch * (length // PAGE + 2),
        page_size=PAGE,
        prefill_budget=batch * context,
        overlap=overlap,
    )
    scheduler = Scheduler(InstantRunner(), limits, make_rows(limits))
    random = np.random.default_rng(0)
    sampling = SamplingParams(max_new_tokens=steps + 8, temperature=0.8)
    for uid in range(batch):
        prompt = random.integers(10, VOCAB, context).astype(np.int32).tobytes()
        scheduler.receive(ToScheduler(new=[NewRequest(uid + 1, prompt, sampling, [2])]))
    for _ in range(3):
        scheduler.step()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        scheduler.step()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--context", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"host time per decode step, context {args.context}, ms")
    print(f"{'batch':>6}{'overlap':>9}{'plain':>9}   known: mini-sglang, nano-vllm")
    for batch in args.batch:
        best = {
            overlap: min(measure(batch, args.context, args.steps, overlap) for _ in range(args.repeat))
            for overlap in (True, False)
        }
        known = ", ".join(map(str, KNOWN.get(batch, ())))
        print(f"{batch:>6}{best[True]:>9.3f}{best[False]:>9.3f}   {known}")


if __name__ == "__main__":
    main()
