"""The client names the worker, by its position or its URL."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from policies.cost.fleet_view import view_of
from policies.least_load import least_loaded
from policies.policy import Candidate, Decision, Policy, RouteRequest

MAX_DIGITS = 9  # of a position; the target is whatever a client sends


class PassthroughPolicy(Policy):
    """Reasons: ``target``, ``less_loaded`` (no target was named, or it cannot be chosen now)."""

    name = "passthrough"

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        target = named(request, candidates)
        if target is not None:
            return Decision(target, reason="target")
        return Decision(least_loaded(request, candidates, self._rng), reason="less_loaded")


def named(request: RouteRequest, candidates: Sequence[Candidate]) -> str | None:
    """The candidate that the request asks for."""
    target = request.target
    if not target:
        return None
    if target.isdecimal():
        index = int(target) if len(target) <= MAX_DIGITS else len(candidates)
        return candidates[index].worker if index < len(candidates) else None
    wanted = target.rstrip("/")
    workers = view_of(candidates).workers
    return next((worker for worker in workers if worker == wanted or worker.endswith(f"//{wanted}")), None)
