"""What grammars cost a decode step: host work that the device waits for, and masks filled while it computes.

    python -m benchmarks.guided_step [--batch 32] [--step-ms 5]

The device is made up: it takes ``--step-ms`` for its logits, and samples any token that the masks allow. Rows without
a grammar are launched one step ahead, so that the device never waits for the host. A step with guided rows is launched
when the step before has been taken in (that is waited for), and its masks are filled while the device computes (that is
waited for only when it takes longer). Times are CPU times of the host's threads, so that other work on the machine does
not count; the vocabulary is the default model's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.grammar import GrammarCompiler, GrammarSpec, Vocabulary
from backend.messages import NewRequest, ToScheduler
from backend.prompt import load_prompt, resolve_model
from backend.sampling_params import SamplingParams
from backend.scheduler.batch import StepBatch
from backend.scheduler.limits import SchedulerLimits, make_rows
from backend.scheduler.loop import Scheduler
from backend.scheduler.slots import Slots
from benchmarks.structured import SCHEMAS

PAGE = 16
CONTEXT = 4096
# Lists that do not come to an end, of what a step may meet.
KINDS = {
    "texts": {"type": "string"},
    "numbers": {"type": "integer"},
    "records of short texts and numbers": {"anyOf": list(SCHEMAS.values())},
}


class MadeUpStep:
    def __init__(self, tokens: NDArray[np.int32]) -> None:
        self._tokens = tokens

    def tokens(self) -> NDArray[np.int32]:
        return self._tokens


class MadeUpDevice:
    """Fills the masks of a step when it is launched, and measures that apart."""

    def __init__(self) -> None:
        self.fill_ms: list[float] = []
        self.aside = 0.0  # seconds of the calling thread that are no host work of a real step

    def launch(self, batch: StepBatch, slots: Slots) -> MadeUpStep:
        entered = time.thread_time()
        tokens = np.full(len(batch.rows), 5, np.int32)
        if batch.allowed is not None:
            started = time.process_time()
            bits = batch.allowed.bits
            self.fill_ms.append((time.process_time() - started) * 1000)
            tokens[batch.allowed.rows] = _any_token(bits, len(self.fill_ms))
        self.aside += time.thread_time() - entered
        return MadeUpStep(tokens)


def _any_token(bits: NDArray[np.int32], turn: int) -> NDArray[np.int64]:
    """One allowed token a row: the first one of the first words or of the last, in turns."""
    words = bits.view(np.uint32)
    used = words != 0
    place = used.argmax(axis=1) if turn % 2 else used.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    chosen = words[np.arange(len(words)), place].astype(np.uint64)
    lowest = chosen & (~chosen + np.uint64(1))
    return place * 32 + np.log2(lowest.astype(np.float64)).astype(np.int64)


class Cost(NamedTuple):
    """Of the measured steps."""

    host_ms: list[float]  # CPU time of the scheduler's thread, without its masks
    mask_ms: list[float]  # CPU time of all threads
    tokens: float  # that a row got in a step, forced ones among them


def measure(batch: int, steps: int, spec: GrammarSpec | None, vocabulary: Vocabulary) -> Cost:
    """Decode steps of ``batch`` rows, all with ``spec``."""
    limits = SchedulerLimits(
        max_running_requests=batch,
        max_queued_requests=None,
        context_length=CONTEXT,
        num_pages=batch * (CONTEXT // PAGE + 2),
        page_size=PAGE,
        prefill_budget=batch * 64,
        vocab_size=vocabulary.size,
    )
    device = MadeUpDevice()
    scheduler = Scheduler(device, limits, make_rows(limits), GrammarCompiler(lambda: vocabulary))
    sampling = SamplingParams(max_new_tokens=CONTEXT - 64)
    for uid in range(1, batch + 1):
        prompt = np.arange(10, 42, dtype=np.int32) + uid
        new = NewRequest(uid, prompt.tobytes(), sampling, [], namespace=str(uid), grammar=spec)
        scheduler.receive(ToScheduler(new=[new]))
    while scheduler.stats.decode_tokens_total < 4 * batch:
        scheduler.step()
    device.fill_ms.clear()
    host, tokens = [], 0
    for _ in range(steps):
        device.aside, started = 0.0, time.thread_time()
        out = scheduler.step()
        host.append((time.thread_time() - started - device.aside) * 1000)
        tokens += len(out.tokens)
    return Cost(host, device.fill_ms, tokens / (steps * batch))


def _mask_threads() -> int:
    """As llguidance has them."""
    return max(1, min(32, (os.cpu_count() or 1) * 8 // 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--step-ms", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--threads", type=int, default=_mask_threads(), help="that fill masks (a sum of times is split)"
    )
    args = parser.parse_args()
    tokenizer = load_prompt(resolve_model(None)).tokenizer
    eos = list(tokenizer.eos_token_ids)
    vocabulary = Vocabulary.from_json(tokenizer.to_json(), size=tokenizer.vocab_size, eos_token_ids=eos)
    print(
        f"{args.batch} rows, device {args.step_ms:g} ms a step, {args.threads} threads for masks; CPU ms, mean (median)"
    )
    plain = measure(args.batch, args.steps, None, vocabulary).host_ms
    print(f"without grammars the host takes {_told(plain)}, while the device computes\n")
    print("| lists of | tokens a row and step | the device waits | masks | share of the step |\n|---|---|---|---|---|")
    for name, items in KINDS.items():
        spec = GrammarSpec("json_schema", json.dumps({"type": "array", "items": items, "minItems": 100_000}))
        cost = measure(args.batch, args.steps, spec, vocabulary)
        late = statistics.mean(max(0.0, each / args.threads - args.step_ms) for each in cost.mask_ms)
        share = (statistics.mean(cost.host_ms) + late) / args.step_ms
        print(f"| {name} | {cost.tokens:.2f} | {_told(cost.host_ms)} | {_told(cost.mask_ms)} | {share:.1%} |")


def _told(times: list[float]) -> str:
    return f"{statistics.mean(times):.3f} ({statistics.median(times):.3f})"


if __name__ == "__main__":
    main()
