"""One request's life: admit, read, choose, lease, send, relay, settle."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from random import Random

from aiohttp import web

from policies.policy import Decision
from router.answer_tail import Tail, cached_at_head
from router.body import Facts, read_body, read_facts
from router.config import RouterConfig
from router.errors import Refusal, bad_gateway, gateway_timeout, unavailable, unknown_model
from router.fleet.registry import Registry
from router.fleet.worker import Worker
from router.headers import request_id, to_backend, to_client
from router.inflight import Inflight
from router.metrics import Metrics
from router.placement import Booking, Placement
from router.relay import ClientGone, Cut, relay
from router.retry import RETRIABLE_STATUSES, Attempts, Failure
from router.upstream import Answer, Outgoing, Upstream, UpstreamError

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEPT_ANSWER_BYTES = 256 * 1024  # of a 5xx that may yet be the last word


@dataclass(slots=True)
class Visit:
    """What is known of one client request while it is served."""

    request: web.Request
    started: float  # in seconds of _now()
    deadline: float | None  # in seconds of the event loop's clock
    id_name: str
    id_value: str
    facts: Facts = field(default_factory=Facts)
    kept: web.Response | None = None  # the last 5xx of a worker, relayed when no other attempt does better

    @property
    def expired(self) -> bool:
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    @property
    def replayable(self) -> bool:
        """May the request be sent to a second worker although a first one may have begun to work on it?"""
        return self.facts.inference or self.request.method in SAFE_METHODS


class Gateway:
    """Serves every request that is not the router's own."""

    def __init__(
        self,
        config: RouterConfig,
        registry: Registry,
        placement: Placement,
        upstream: Upstream,
        metrics: Metrics,
        inflight: Inflight,
        suspect: Callable[[Worker], None],
        random: Random,
    ) -> None:
        self._config = config
        self._retries = config.retries
        self._total = config.timeouts.total
        self._registry = registry
        self._placement = placement
        self._upstream = upstream
        self._metrics = metrics
        self._inflight = inflight
        self._suspect = suspect
        self._random = random

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer ``request`` from a worker, or say why not."""
        visit = self._admit(request)
        status = CLIENT_LEFT
        try:
            with self._inflight.one():
                response = await self._serve(visit)
                status = response.status
                return response
        except Refusal as refusal:
            status = refusal.status
            return refusal.response({visit.id_name: visit.id_value})
        except Cut as cut:
            status = 502
            log.warning("request %s was cut after its first byte: %s", visit.id_value, cut)
            return web.Response(status=status)  # goes nowhere: the connection is closed
        except ClientGone:
            return web.Response(status=status)
        finally:
            self._metrics.answered(request.path, status, _now() - visit.started)

    def _admit(self, request: web.Request) -> Visit:
        self._metrics.arrived(request.method, request.path)
        now = _now()
        deadline = None if self._total is None else asyncio.get_running_loop().time() + self._total
        return Visit(request, now, deadline, *request_id(request.headers, self._config.request_id_headers))

    async def _serve(self, visit: Visit) -> web.StreamResponse:
        if self._inflight.refusing:
            raise unavailable("The router is shutting down.", code="shutting_down", close=True)
        request = visit.request
        body = await read_body(request, self._config.max_payload_size)
        if request.method == "POST":
            visit.facts = read_facts(
                request.path, request.headers, body, self._placement.prompt_text, self._registry.canonical
            )
        self._count(visit)
        if not self._registry.serves(visit.facts.model):
            raise unknown_model(visit.facts.model)
        headers = to_backend(request, visit.id_name, visit.id_value)
        return await self._try_workers(visit, Outgoing(request.method, _target(request), headers, body))

    def _count(self, visit: Visit) -> None:
        facts = visit.facts
        if facts.inference:
            model = self._metrics.model_label(facts.model)
            self._metrics.model_requests.labels(model, visit.request.path, str(facts.stream).lower()).inc()

    async def _try_workers(self, visit: Visit, outgoing: Outgoing) -> web.StreamResponse:
        attempts = Attempts(self._retries, visit.replayable, self._random)
        while True:
            eligible = await self._eligible(visit, attempts)
            if not eligible:
                return self._give_up(visit, attempts)
            worker, decision = self._placement.choose(visit.facts.route, eligible, _now())
            try:
                return await self._attempt(visit, worker, decision, outgoing)
            except UpstreamError as error:
                if not self._failed(visit, worker, error, attempts):
                    return self._give_up(visit, attempts)

    async def _eligible(self, visit: Visit, attempts: Attempts) -> list[Worker]:
        """Workers to choose from; when all were tried, those that may do better after a pause."""
        eligible = self._registry.eligible(visit.facts.model, attempts.excluded)
        if not eligible and (pause := attempts.next_round()) is not None:
            await asyncio.sleep(pause)
            eligible = self._registry.eligible(visit.facts.model, attempts.excluded)
        return eligible

    async def _attempt(
        self, visit: Visit, worker: Worker, decision: Decision, outgoing: Outgoing
    ) -> web.StreamResponse:
        """Send to ``worker`` and relay its answer. Raises UpstreamError as long as the client has seen nothing."""
        now = _now()
        with self._placement.book(visit.facts.route, decision, now) as booking:
            booking.record(now)
            try:
                response = await self._exchange(visit, worker, outgoing, booking)
            except UpstreamError as error:
                booking.outcome = error.failure.value
                raise
            except Cut:
                booking.outcome = "cut"
                self._suspect(worker)
                raise
            booking.outcome = "ok" if response.status < 400 else "client_error" if response.status < 500 else "status"
            return response

    async def _exchange(self, visit: Visit, worker: Worker, outgoing: Outgoing, booking: Booking) -> web.StreamResponse:
        answer, first_byte_by = await self._upstream.send(worker, outgoing, visit.deadline)
        with closing(answer):
            good = answer.status < 400
            cached = cached_at_head(answer.headers) if good else None
            if cached is not None:  # this head came with the first token
                self._first_token(visit, booking, cached, good)
            await answer.peek(first_byte_by)
            await self._reject_bad(visit, answer)
            if cached is None:
                self._first_token(visit, booking, None, good and visit.facts.stream)
            tail = Tail()
            headers = to_client(answer.headers, visit.id_name, visit.id_value)
            response = await relay(visit.request, answer, headers, tail)
            if good and visit.facts.inference:
                booking.finished(tail, _now())
            return response

    def _first_token(self, visit: Visit, booking: Booking, cached: int | None, timed: bool) -> None:
        """``timed``: what came is the first token, not a whole answer or an error."""
        now = _now()
        booking.first_token(now, cached, teach=timed)
        if timed:
            self._metrics.ttft.labels(self._metrics.model_label(visit.facts.model)).observe(now - visit.started)

    async def _reject_bad(self, visit: Visit, answer: Answer) -> None:
        """Raise UpstreamError for an answer that another worker may better; keep a 5xx in case none does."""
        if visit.facts.inference and answer.status < 300 and answer.complete and not answer.first:
            raise UpstreamError(Failure.EMPTY, "an answer without a byte")
        if not visit.replayable or answer.status not in RETRIABLE_STATUSES:
            return
        body = answer.first
        while not answer.complete and len(body) <= KEPT_ANSWER_BYTES:
            body += await answer.read()
        if answer.complete:
            headers = to_client(answer.headers, visit.id_name, visit.id_value)
            visit.kept = web.Response(status=answer.status, reason=answer.reason, headers=headers, body=body)
        raise UpstreamError(Failure.STATUS, f"status {answer.status}", answer.status)

    def _failed(self, visit: Visit, worker: Worker, error: UpstreamError, attempts: Attempts) -> bool:
        """Note a failed attempt. True when another one may follow."""
        if error.failure is not Failure.STALE:
            log.warning("request %s failed on worker %s: %s", visit.id_value, worker.url, error)
            self._suspect(worker)
        again = attempts.note(worker.url, error.failure, error.status)
        again = again and not visit.expired
        if again:
            self._metrics.retries.labels(error.failure.value).inc()
        return again

    def _give_up(self, visit: Visit, attempts: Attempts) -> web.StreamResponse:
        if visit.kept is not None:
            return visit.kept
        if attempts.last is None:
            raise unavailable("No healthy backend can take this request now.", code="no_healthy_backend")
        tried = f"{attempts.count} attempt{'s' if attempts.count > 1 else ''}"
        if attempts.last is Failure.TIMEOUT:
            raise gateway_timeout(f"No backend answered in time ({tried}).")
        raise bad_gateway(f"No backend could answer the request ({tried}).")


def _target(request: web.Request) -> str:
    """Path and query as they came, also from a request line with a whole URL."""
    raw = request.raw_path
    return raw if raw.startswith("/") else request.rel_url.raw_path_qs


def _now() -> float:
    """Finer than the event loop's clock, which stands still within a turn."""
    return time.monotonic()
