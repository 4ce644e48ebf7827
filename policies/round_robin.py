"""Workers in turn, whatever they are doing."""

from __future__ import annotations

from collections.abc import Sequence

from policies.cost.fleet_view import view_of
from policies.policy import Candidate, Decision, Policy, RouteRequest


class RoundRobinPolicy(Policy):
    """Picks the candidate that was sent to longest ago.

    With a fixed fleet this is the plain rotation. Unlike a counter modulo the number of candidates it stays fair when
    workers come, go, or sit out a retry.
    """

    name = "round_robin"

    def __init__(self) -> None:
        self._turn = 0
        self._last_turn: dict[str, int] = {}

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        chosen = min(view_of(candidates).workers, key=lambda worker: self._last_turn.get(worker, 0))
        return Decision(chosen, reason="turn")

    def record(self, request: RouteRequest, worker: str, now: float) -> None:
        self._turn += 1
        self._last_turn[worker] = self._turn

    def forget(self, worker: str) -> None:
        self._last_turn.pop(worker, None)
