"""A worker drawn uniformly: the baseline that needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from policies.policy import Candidate, Decision, Policy, RouteRequest


class RandomPolicy(Policy):
    name = "random"

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        return Decision(self._rng.choice(candidates).worker, reason="random")
