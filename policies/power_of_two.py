"""Two workers drawn at random, the less loaded of them chosen: most of least-load's benefit without its herding."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from policies.cost.score import score, wait_of
from policies.policy import Candidate, Decision, Policy, RouteRequest


class PowerOfTwoPolicy(Policy):
    """Compares the cost in milliseconds that the leases amount to; equal costs are decided by the draw."""

    name = "power_of_two"

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        if len(candidates) == 1:
            return Decision(candidates[0].worker, reason="only")
        pair = self._rng.sample(candidates, 2)
        scores = tuple(score(candidate.worker, wait_of(candidate), request.prompt_tokens) for candidate in pair)
        # Equal costs are decided by the number of requests, and then by the order of the pair, which is random.
        index = min((0, 1), key=lambda i: (scores[i].total_ms, pair[i].load.requests))
        return Decision(scores[index].worker, reason="less_loaded", scores=scores)
