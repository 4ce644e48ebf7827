"""The router's side of a simulation: the same policy, leases and learned speeds, fed by simulated events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.cost.felt import feel
from policies.cost.fleet_view import Roster
from policies.cost.leases import Lease, LeaseBook
from policies.cost.rates import RateBook
from policies.policy import Candidate, Policy, RouteRequest, WorkerLoad
from policies.sim.engine import Event, EventKind, SimEngine
from policies.sim.request import SimRequest

POLL_S = 1.0  # between two looks at the loads that backends tell

TextOf = Callable[[SimRequest], bytes]


class SimRouter(ABC):
    """Chooses an engine by its index, and hears of first tokens and ends in the order of time."""

    @abstractmethod
    def send(self, number: int, request: SimRequest, now: float) -> tuple[int, int]:
        """Where request ``number`` goes, and how many of its tokens are expected to be cached there."""

    def heard(self, number: int, engine: int, event: Event) -> None:  # noqa: B027
        """What the answer to request ``number`` showed."""


@dataclass(slots=True)
class _Flight:
    """A request under way. ``open_ms``: its time to first token, when only its end may tell what was cached."""

    route: RouteRequest
    lease: Lease
    load_before: WorkerLoad
    predicted: int
    open_ms: float | None = None


class PolicyRouter(SimRouter):
    """A router process with a real policy, told what the real router is told.

    ``learn_speeds`` off keeps the default speed for every worker: what a router assumes that knows no better.
    ``reports``: when an answer tells its cached tokens, in its head or at its end; None when it never does.
    ``kv_tokens`` are those of each worker, where backends tell them. ``told``: the engines, when they publish KV
    events; ``polled``: when they tell their loads.
    """

    def __init__(
        self,
        policy: Policy,
        workers: Sequence[str],
        text_of: TextOf,
        *,
        learn_speeds: bool = True,
        reports: EventKind | None = EventKind.FIRST_TOKEN,
        kv_tokens: Sequence[int] = (),
        told: Sequence[SimEngine] = (),
        polled: Sequence[SimEngine] = (),
    ) -> None:
        self.policy = policy
        self.leases = LeaseBook()
        self.speeds = RateBook()
        self._workers = list(workers)
        self._text_of = text_of
        self._learn_speeds = learn_speeds
        self._reports = reports
        for worker, tokens in zip(workers, kv_tokens, strict=False):
            policy.capacity(worker, tokens)
        self._roster = Roster(self._workers, self.leases, self.speeds)
        self._index = self._roster.index
        self._flights: dict[int, _Flight] = {}
        self._told = told
        self._polled = polled
        self._next_poll = 0.0

    def _candidates(self, request: SimRequest, now: float) -> Sequence[Candidate]:
        if not self._told:
            return self._roster.view(now)
        held = {worker: engine.cached_tokens(request) for worker, engine in zip(self._workers, self._told, strict=True)}
        holders = sorted((worker for worker in held if held[worker]), key=held.__getitem__, reverse=True)
        return self._roster.view(now, held.__getitem__, holders)

    def _poll(self, now: float) -> None:
        if now >= self._next_poll:
            self._next_poll = now + POLL_S
            for worker, engine in zip(self._workers, self._polled, strict=False):
                self.leases.reported(worker, engine.backlog, engine.decodes, now, requests=engine.requests)

    def send(self, number: int, request: SimRequest, now: float) -> tuple[int, int]:
        route = RouteRequest(self._text_of(request), request.prompt_tokens, routing_key=request.session)
        self._poll(now)
        decision = self.policy.choose(route, self._candidates(request, now), now)
        worker = decision.worker
        before = self.leases.load(worker, now)
        lease = self.leases.open(worker, request.prompt_tokens - decision.cached_tokens, now)
        self._flights[number] = _Flight(route, lease, before, decision.cached_tokens)
        self.policy.record(route, worker, now)
        return self._index[worker], decision.cached_tokens

    def heard(self, number: int, engine: int, event: Event) -> None:
        flight = self._flights[number]
        worker = self._workers[engine]
        cached = flight.predicted if self._reports is None else event.cached_tokens
        if event.kind is EventKind.FIRST_TOKEN:
            self._first_token(flight, worker, None if self._reports is not event.kind else cached, event.time)
        if event.kind is self._reports:
            self.policy.observe(flight.route, worker, event.cached_tokens, event.time)
        if event.kind is EventKind.DONE:
            self.speeds.ended(worker, self._reports is event.kind)
            if flight.open_ms is not None:
                self._teach(flight, worker, cached, flight.open_ms, event.time)
            del self._flights[number]
            flight.lease.release()

    def _first_token(self, flight: _Flight, worker: str, cached: int | None, now: float) -> None:
        felt = None if cached is not None else feel(flight.lease, flight.load_before, self.speeds, now)
        ttft_ms = flight.lease.first_token(now)
        if felt is not None:
            self.policy.felt(flight.route, worker, *felt)
        denied = felt is not None and felt.denies(flight.route.prompt_tokens, flight.predicted)
        if cached is None and (denied or self.speeds.better_at_end(worker, flight.predicted)):
            flight.open_ms = ttft_ms
        elif ttft_ms is not None:
            self._teach(flight, worker, flight.predicted if cached is None else cached, ttft_ms, now)

    def _teach(self, flight: _Flight, worker: str, cached: int, ttft_ms: float, now: float) -> None:
        if self._learn_speeds:
            self.speeds.observe(worker, flight.route.prompt_tokens - cached, flight.load_before, ttft_ms, now)
