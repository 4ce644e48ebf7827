"""CPU time of a placement: ``python -m benchmarks.decision``.

What the router does for each request with the default policy: *choose* (`Placement.choose`: the workers' loads and
speeds, the policy, the decision counted) and *record* (the policy is told what was sent). Every worker has work in
flight and holds prompts; half of each prompt is a head that many share. Microseconds of CPU, of the best of some
rounds of a hundred prompts.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from random import Random

from policies import LeaseBook, RateBook, RouteRequest, WorkerLoad, make_policy
from router.fleet.worker import Worker, WorkerSpec
from router.metrics import Metrics
from router.placement import Placement
from router.prompt_text import PromptText

BYTES_PER_TOKEN, HEADS, PROMPTS_PER_WORKER, STEP_S = 4, 50, 20, 0.01
ROUNDS, ROUND = 15, 100


class Fleet:
    """A router's placement after a while of traffic. ``kv_tokens``: of each worker's cache, when it says so."""

    def __init__(self, workers: int, prompt_bytes: int, kv_tokens: int | None) -> None:
        self._rng = Random(0)
        self._half = prompt_bytes // 2
        self._heads = [self._rng.randbytes(self._half) for _ in range(HEADS)]
        self.now = 0.0
        self.workers = [Worker(WorkerSpec(url=f"10.0.{i // 250}.{i % 250}:30000")) for i in range(workers)]
        self.placement = Placement(
            make_policy("cache_aware", seed=0), LeaseBook(), RateBook(), PromptText(), Metrics(lambda model: True)
        )
        for worker in self.workers if kv_tokens else ():
            self.placement.policy.capacity(worker.url, kv_tokens or 0)
        for _ in range(workers * PROMPTS_PER_WORKER):
            self._serve(self._rng.choice(self.workers).url)

    def prompts(self, count: int) -> list[RouteRequest]:
        """New prompts."""
        texts = [self._rng.choice(self._heads) + self._rng.randbytes(self._half) for _ in range(count)]
        return [RouteRequest(text, len(text) // BYTES_PER_TOKEN) for text in texts]

    def _serve(self, url: str) -> None:
        """Nine prompts of ten have their first token at once; every other answer ends."""
        self.now += STEP_S
        (prompt,) = self.prompts(1)
        self.placement.policy.record(prompt, url, self.now)
        lease = self.placement.leases.open(url, prompt.prompt_tokens // 2, self.now)
        if self._rng.random() < 0.9:
            lease.first_token(self.now)
            self.placement.speeds.observe(
                url, prompt.prompt_tokens, WorkerLoad(), prompt.prompt_tokens * self._rng.uniform(0.08, 0.12), self.now
            )
        if self._rng.random() < 0.5:
            lease.release()


def cpu_us(act: Callable[[RouteRequest], object], prompts: Sequence[RouteRequest]) -> float:
    """The CPU time that ``act`` takes for one prompt: of the best round, for others use the same caches."""
    times = []
    for start in range(0, len(prompts), ROUND):
        part = prompts[start : start + ROUND]
        began = time.process_time()
        for prompt in part:
            act(prompt)
        times.append((time.process_time() - began) / len(part) * 1e6)
    return min(times)


def measure(workers: int, prompt_bytes: int, kv_tokens: int | None) -> tuple[float, float]:
    """(choose, record). A record follows the choice of the same prompt, so it is timed as what it adds to one."""
    fleet = Fleet(workers, prompt_bytes, kv_tokens)
    placement, now = fleet.placement, fleet.now + STEP_S

    def choose_and_record(prompt: RouteRequest) -> None:
        _, decision = placement.choose(prompt, fleet.workers, now)
        placement.policy.record(prompt, decision.worker, now)

    gc.disable()
    try:
        chosen = cpu_us(lambda prompt: placement.choose(prompt, fleet.workers, now), fleet.prompts(ROUNDS * ROUND))
        both = cpu_us(choose_and_record, fleet.prompts(ROUNDS * ROUND))
    finally:
        gc.enable()
    return chosen, both - chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 64, 512])
    parser.add_argument("--bytes", type=int, nargs="+", default=[256, 16384])
    parser.add_argument("--kv-tokens", type=int, metavar="N", help="cache size that workers tell; not told by default")
    args = parser.parse_args()
    print("| workers | prompt (bytes) | choose (us) | record (us) |\n|---|---|---|---|")
    for workers in args.workers:
        for size in args.bytes:
            chosen, recorded = measure(workers, size, args.kv_tokens)
            print(f"| {workers} | {size} | {chosen:.1f} | {recorded:.1f} |", flush=True)


if __name__ == "__main__":
    main()
