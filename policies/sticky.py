"""A session stays where it began (``--policy manual``)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from policies.least_load import least_loaded
from policies.policy import Candidate, Decision, Policy, RouteRequest

ASSIGNMENT_MODES = ("random", "min_load", "min_group")
MAX_SESSIONS = 200_000  # the one that was idle longest is forgotten


class _Session(NamedTuple):
    worker: str
    used_at: float


class StickyPolicy(Policy):
    """Remembers the worker of each routing key until the key has been idle for ``max_idle_s``.

    A new key goes to a worker drawn at random, to the least loaded one (``min_load``), or to the one with the fewest
    keys (``min_group``). When a session's worker cannot be chosen it moves. Reasons: ``session``, ``new``, ``moved``,
    ``less_loaded`` (no key).
    """

    name = "manual"

    def __init__(self, rng: Random, max_idle_s: float, assignment: str) -> None:
        if assignment not in ASSIGNMENT_MODES:
            raise ValueError(f"unknown assignment mode {assignment!r}: choose one of {', '.join(ASSIGNMENT_MODES)}")
        self._rng = rng
        self._max_idle_s = max_idle_s
        self._assignment = assignment
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # the longest idle first
        self._groups: Counter[str] = Counter()  # sessions of each worker

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        key = request.routing_key
        if not key:
            return Decision(least_loaded(request, candidates, self._rng), reason="less_loaded")
        session = self._sessions.get(key)
        if session is None or now - session.used_at > self._max_idle_s:
            return Decision(self._assign(request, candidates), reason="new")
        if any(candidate.worker == session.worker for candidate in candidates):
            return Decision(session.worker, reason="session")
        return Decision(self._assign(request, candidates), reason="moved")

    def _assign(self, request: RouteRequest, candidates: Sequence[Candidate]) -> str:
        if self._assignment == "random":
            return self._rng.choice(candidates).worker
        if self._assignment == "min_load":
            return least_loaded(request, candidates, self._rng)
        fewest = min(self._groups[candidate.worker] for candidate in candidates)
        return self._rng.choice([c.worker for c in candidates if self._groups[c.worker] == fewest])

    def record(self, request: RouteRequest, worker: str, now: float) -> None:
        if not request.routing_key:
            return
        self._drop(request.routing_key)
        self._sessions[request.routing_key] = _Session(worker, now)
        self._groups[worker] += 1
        while len(self._sessions) > MAX_SESSIONS or self._oldest_is_idle(now):
            self._drop(next(iter(self._sessions)))

    def forget(self, worker: str) -> None:
        for key in [key for key, session in self._sessions.items() if session.worker == worker]:
            self._drop(key)

    def stats(self) -> dict[str, float]:
        return {"sticky_sessions": len(self._sessions)}

    def _oldest_is_idle(self, now: float) -> bool:
        return now - next(iter(self._sessions.values())).used_at > self._max_idle_s

    def _drop(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            self._groups[session.worker] -= 1
            if not self._groups[session.worker]:
                del self._groups[session.worker]
