"""The clairvoyant: it reads the engines' true state, and still only decides one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from policies.sim.engine import SimEngine
from policies.sim.request import SimRequest
from policies.sim.routing import SimRouter


class GreedyOracle(SimRouter):
    """Least ``wait + weight * own uncached tokens / speed``; ties at random.

    Weight 0 is least work, 1 the true time to first token of this request, and 3 a rule of thumb that keeps caches
    cleaner for those who come later.
    """

    def __init__(self, engines: Sequence[SimEngine], weight: float, rng: Random) -> None:
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self._engines = engines
        self._weight = weight
        self._rng = rng

    def send(self, number: int, request: SimRequest, now: float) -> tuple[int, int]:
        cached = [engine.cached_tokens(request) for engine in self._engines]
        costs = [
            engine.wait_seconds(now)
            + self._weight * (request.prompt_tokens - known) / engine.spec.prefill_tokens_per_s
            + engine.decodes * engine.spec.sequence_ms / 1000.0
            for engine, known in zip(self._engines, cached, strict=True)
        ]
        best = min(costs)
        index = self._rng.choice([index for index, cost in enumerate(costs) if cost <= best + 1e-9])
        return index, cached[index]
