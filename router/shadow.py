"""``--shadow-policy``: another policy decides beside the live one, on engines that exist in a model only.

Each request goes to the shadow's choice among simulated engines (``policies.sim``) with the live workers' cache sizes
and learned speeds. What comes out are counters to compare with the live ones: cached tokens, times to first token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import xxhash
from prometheus_client import CollectorRegistry

from policies.cost.leases import Lease, LeaseBook
from policies.policy import Candidate, Policy, RouteRequest
from policies.sim.engine import EngineSpec, Event, EventKind, SimEngine
from policies.sim.request import SimRequest
from router.dossier import Attempt, Dossier
from router.tally import Counter

BLOCK_BYTES = 256  # of prompt text for each segment
BYTES_PER_TOKEN = 4
DEFAULT_KV_TOKENS = 200_000  # of a worker that does not say
USUAL_OUTPUT = 128.0  # tokens, until answers have told
MAX_FLIGHTS = 10_000


@dataclass(slots=True)
class _Flight:
    worker: str
    route: RouteRequest
    lease: Lease


class Shadow:
    """A watcher. It sends nothing and its policy is its own."""

    def __init__(self, policy: Policy, registry: CollectorRegistry) -> None:
        self._policy = policy
        self._leases = LeaseBook()
        self._engines: dict[str, SimEngine] = {}
        self._capacities: dict[str, int] = {}
        self._flights: dict[int, _Flight] = {}
        self._output = USUAL_OUTPUT
        self._number = 0
        self._decisions = Counter(
            "warmlane_shadow_decisions_total", "Decisions of the shadow policy", ["policy", "agrees"], registry=registry
        )
        self._prompt = Counter("warmlane_shadow_prompt_tokens_total", "Prompt tokens simulated", registry=registry)
        self._cached = Counter("warmlane_shadow_cached_tokens_total", "Of those cached", registry=registry)
        self._ttft = Counter("warmlane_shadow_ttft_seconds_total", "Simulated times to first token", registry=registry)
        self._first = Counter("warmlane_shadow_first_tokens_total", "Simulated first tokens", registry=registry)

    def capacity(self, worker: str, kv_tokens: int) -> None:
        """``worker`` said how many tokens its cache holds. A model of another size begins anew."""
        engine = self._engines.get(worker)
        if engine is not None and engine.spec.kv_tokens != kv_tokens:
            self.forget(worker)
        self._capacities[worker] = kv_tokens
        self._policy.capacity(worker, kv_tokens)

    def forget(self, worker: str) -> None:
        self._engines.pop(worker, None)
        self._capacities.pop(worker, None)
        self._flights = {number: flight for number, flight in self._flights.items() if flight.worker != worker}
        self._leases.forget(worker)
        self._policy.forget(worker)

    def chosen(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """Decide the same request, once, and let it run in the model."""
        if len(dossier.attempts) > 1 or not route.text or len(self._flights) >= MAX_FLIGHTS:
            return
        now = attempt.at
        self._advance(now)
        candidates = [Candidate(c.worker, self._leases.load(c.worker, now), c.speed) for c in attempt.candidates]
        decision = self._policy.choose(route, candidates, now)
        agrees = "yes" if decision.worker == attempt.decision.worker else "no"
        self._decisions.labels(self._policy.name, agrees).inc()
        speed = next(c.speed.prefill_ms_per_token for c in candidates if c.worker == decision.worker)
        self._send(route, decision.worker, decision.cached_tokens, speed, now)

    def settled(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """Answers tell how long outputs are here."""
        if attempt.output_tokens is not None:
            self._output += (attempt.output_tokens - self._output) / 50

    def _send(self, route: RouteRequest, worker: str, predicted: int, ms_per_token: float, now: float) -> None:
        request = _simulated(route, max(1, round(self._output)), now)
        lease = self._leases.open(worker, max(0, request.prompt_tokens - predicted), now)
        self._policy.record(route, worker, now)
        self._number += 1
        try:
            self._engine(worker, ms_per_token).submit(self._number, request, now)
        except ValueError:  # longer than its whole cache
            lease.release()
            return
        self._flights[self._number] = _Flight(worker, route, lease)

    def _engine(self, worker: str, ms_per_token: float) -> SimEngine:
        """The model of ``worker``, as fast as it is known to be by now."""
        engine = self._engines.get(worker)
        if engine is None:
            engine = self._engines[worker] = SimEngine(EngineSpec(self._capacities.get(worker, DEFAULT_KV_TOKENS)))
        engine.spec = replace(engine.spec, prefill_tokens_per_s=1000.0 / max(ms_per_token, 1e-3))
        return engine

    def _advance(self, now: float) -> None:
        events = [event for engine in self._engines.values() for event in engine.advance(now)]
        for event in sorted(events, key=lambda event: event.time):
            self._heard(event)

    def _heard(self, event: Event) -> None:
        flight = self._flights.get(event.number)
        if flight is None:
            return
        if event.kind is EventKind.DONE:
            del self._flights[event.number]
            flight.lease.release()
            return
        ttft_ms = flight.lease.first_token(event.time)
        self._policy.observe(flight.route, flight.worker, event.cached_tokens, event.time)
        self._prompt.inc(event.request.prompt_tokens)
        self._cached.inc(event.cached_tokens)
        if ttft_ms is not None:
            self._ttft.inc(ttft_ms / 1000)
            self._first.inc()


def _simulated(route: RouteRequest, output: int, now: float) -> SimRequest:
    """The request as a chain of segments. Equal text has equal sizes, whatever its whole prompt's rate of tokens is."""
    chain = xxhash.xxh3_64_intdigest(f"{route.model}\0{route.namespace}".encode())
    segments, sizes = [], []
    for start in range(0, len(route.text), BLOCK_BYTES):
        block = route.text[start : start + BLOCK_BYTES]
        chain = xxhash.xxh3_64_intdigest(block, seed=chain)
        segments.append(chain)
        sizes.append(max(1, len(block) // BYTES_PER_TOKEN))
    return SimRequest(now, tuple(segments), tuple(sizes), output)
