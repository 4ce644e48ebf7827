"""A session stays where it began (``--policy manual``)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from xxhash import xxh3_128_hexdigest

from policies.cost.fleet_view import view_of
from policies.least_load import least_loaded
from policies.policy import Candidate, Decision, Policy, RouteRequest

ASSIGNMENT_MODES = ("random", "min_load", "min_group")
MAX_SESSIONS = 200_000  # the one that was idle longest is forgotten
MAX_KEY = 128  # characters; a longer one is kept as its hash


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
        key = _short(request.routing_key)
        if not key:
            return Decision(least_loaded(request, candidates, self._rng), reason="less_loaded")
        session = self._sessions.get(key)
        if session is None or now - session.used_at > self._max_idle_s:
            return Decision(self._assign(request, candidates), reason="new")
        if view_of(candidates).find(session.worker) is not None:
            return Decision(session.worker, reason="session")
        return Decision(self._assign(request, candidates), reason="moved")

    def _assign(self, request: RouteRequest, candidates: Sequence[Candidate]) -> str:
        if self._assignment == "random":
            return self._rng.choice(candidates).worker
        if self._assignment == "min_load":
            return least_loaded(request, candidates, self._rng)
        workers = view_of(candidates).workers
        fewest = min(self._groups[worker] for worker in workers)
        return self._rng.choice([worker for worker in workers if self._groups[worker] == fewest])

    def record(self, request: RouteRequest, worker: str, now: float) -> None:
        key = _short(request.routing_key)
        if not key:
            return
        self._drop(key)
        self._sessions[key] = _Session(worker, now)
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


def _short(key: str) -> str:
    """Keys come from clients, of any length, and are kept for hours."""
    return key if len(key) <= MAX_KEY else xxh3_128_hexdigest(key.encode("utf-8", "surrogatepass"))
