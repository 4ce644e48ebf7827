"""The worker with the shortest expected wait, whatever it has cached."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from policies.cost.score import score, wait_of
from policies.policy import Candidate, Decision, Policy, RouteRequest

SCANNED = 64  # candidates up to which all are weighed; of more, so many drawn at random


class LeastLoadPolicy(Policy):
    """Least time to first token if nothing were cached; ties go to the least recent work, then to the draw."""

    name = "least_load"

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        if len(candidates) == 1:
            return Decision(candidates[0].worker, reason="only")
        return Decision(least_loaded(request, candidates, self._rng), reason="less_loaded")


def wait(candidate: Candidate, request: RouteRequest) -> float:
    """Milliseconds to first token if nothing were cached."""
    return score(candidate.worker, wait_of(candidate), request.prompt_tokens).ttft_ms


def least_loaded(request: RouteRequest, candidates: Sequence[Candidate], rng: Random) -> str:
    """The candidate with the shortest wait; of many, among those drawn."""
    if len(candidates) > SCANNED:
        candidates = [candidates[index] for index in rng.sample(range(len(candidates)), SCANNED)]
    ranks = [(wait(each, request), each.load.requests, each.load.recent_tokens) for each in candidates]
    best = min(ranks)
    return rng.choice([candidate.worker for candidate, rank in zip(candidates, ranks, strict=True) if rank == best])
