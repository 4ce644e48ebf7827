"""One request's life: admit, read, choose, then attempts (router/exchange.py) until one answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from policies.policy import Decision
from router.body import read_facts
from router.config import RouterConfig
from router.continuation import Continuation
from router.dossier import Dossier
from router.errors import Refusal, bad_gateway, gateway_timeout, unavailable, unknown_model
from router.exchange import SAFE_METHODS, Exchange, Leg, Visit, now_seconds
from router.explain import ASK_HEADER
from router.fleet.registry import Registry
from router.fleet.worker import Worker
from router.headers import request_id, to_backend
from router.http.message import Request
from router.http.response import ResponseWriter
from router.http.server import Turn
from router.inflight import Inflight
from router.metrics import Metrics
from router.placement import Placement
from router.protection import Protection
from router.relay import Cut
from router.retry import Attempts, Failure
from router.straight import StraightWay
from router.upstream import Outgoing, Upstream, UpstreamError
from router.usage_splice import spliced

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
WITH_BODY = frozenset({"POST", "PUT"})  # PUT /generate is the same as POST
_BLAMELESS = frozenset({Failure.STALE, Failure.BUSY})
_FREE = frozenset({Failure.STALE, Failure.CONNECT})  # nothing was done for them: they cost no retry budget


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
        protection: Protection,
        may_explain: Callable[[Request], bool] = lambda _request: False,
        name_of: Callable[[Request], str] = lambda _request: "",
        continuation: Continuation | None = None,
    ) -> None:
        self._may_explain = may_explain
        self._request_usage = config.request_usage
        self._id_names = [name.lower() for name in config.request_id_headers]
        self._retries = config.retries
        self._total = config.timeouts.total
        self._registry = registry
        self._placement = placement
        self._exchange = Exchange(placement, upstream, metrics, suspect, protection)
        self._metrics = metrics
        self._inflight = inflight
        self._suspect = suspect
        self._random = random
        self._guards = protection.guards
        self._budget = protection.budget
        self._admission = protection.admission
        self._name_of = name_of
        self._continuation = continuation
        self._loop = asyncio.get_running_loop()

    def look(self, request: Request) -> None:
        """The head is there: raise :class:`Refusal` when the request will be refused whatever its body says."""
        if self._inflight.refusing:
            raise _shutting_down()
        if self._admission.limited:
            self._admission.look(self._name_of(request))

    def serve(self, request: Request, client: ResponseWriter, turn: Turn) -> None:
        """Answer ``request`` from a worker, or say why not."""
        visit = self._admit(request, client)
        try:
            outgoing = self._read(visit)
            leg = self._begin(visit, outgoing) if self._goes_straight(visit) else None
        except Refusal as refusal:
            turn.run(self._refuse(visit, refusal))
            return
        except BaseException:
            self.answered(visit, 500)
            raise
        if leg is not None and leg.answer is not None:
            StraightWay(self._exchange, self, visit, leg, leg.answer, turn, CLIENT_LEFT).begin()
        else:
            turn.run(self._handle(visit, outgoing, leg))

    def _admit(self, request: Request, client: ResponseWriter) -> Visit:
        self._metrics.arrived(request.method, request.path)
        now = now_seconds()
        self._budget.request(now)
        self._inflight.enter()
        deadline = None if self._total is None else self._loop.time() + self._total
        return Visit(request, client, now, deadline, request_id(request.headers, self._id_names))

    def _read(self, visit: Visit) -> Outgoing:
        """What placement needs of the body, and the request as it goes on. Raises :class:`Refusal`."""
        if self._inflight.refusing:
            raise _shutting_down()
        request = visit.request
        if request.method in WITH_BODY:
            visit.facts = read_facts(
                request.path, request.headers, request.body, self._placement.prompt_text, self._registry.canonical
            )
        facts = visit.facts
        if facts.inference:
            self._metrics.asked(facts.model, request.path, facts.stream)
        if not self._registry.serves(facts.model):
            raise unknown_model(facts.model)
        visit.explain = ASK_HEADER in request.headers and self._may_explain(request)
        body = request.body
        if facts.stream:
            if self._continuation is not None:
                visit.transcript = self._continuation.watch(visit.id_value, request.path, body)
            if self._request_usage and visit.transcript is None and (asked := spliced(request.path, body)) is not None:
                visit.usage_asked, body = True, asked
        lines, authorization = to_backend(request, visit.id_name, visit.id_value)
        visit.outgoing = outgoing = Outgoing(request.method, request.target, lines, body, authorization)
        return outgoing

    def _goes_straight(self, visit: Visit) -> bool:
        """Is there nothing to wait for but the answer, and nothing to do with it but to send it on?"""
        return (
            visit.facts.inference
            and not self._admission.limited
            and not (visit.explain or visit.usage_asked)
            and visit.transcript is None
            and not self._placement.needs_tokens(visit.facts)
        )

    def _begin(self, visit: Visit, outgoing: Outgoing) -> Leg | None:
        """The first choice, booked, and sent if a connection is idle; None when nobody is there to be chosen."""
        workers = self._registry.eligible(visit.facts.model)
        if not workers:
            return None
        visit.dossier = Dossier(visit.id_value, visit.facts.form, visit.facts.prompts)
        worker, decision = self._choose(visit, workers)
        return self._exchange.begin(visit, worker, decision, outgoing)

    def answered(self, visit: Visit, status: int) -> None:
        """The request is over."""
        self._inflight.leave()
        self._metrics.answered(visit.request.path, status, now_seconds() - visit.started)

    def cut(self, visit: Visit, why: str) -> None:
        log.warning("request %s was cut after its first byte: %s", visit.id_value, why)
        self.answered(visit, 502)

    def go_on(self, visit: Visit, leg: Leg, turn: Turn) -> None:
        if visit.outgoing is not None:
            turn.run(self._handle(visit, visit.outgoing, leg))

    async def _refuse(self, visit: Visit, refusal: Refusal) -> None:
        self._say(visit, refusal)
        self.answered(visit, refusal.status)

    def _say(self, visit: Visit, refusal: Refusal) -> None:
        pairs = [(visit.id_name.encode("latin-1"), visit.id_value.encode("latin-1"))]
        visit.client.reply(refusal.reply(pairs, path=visit.request.path))

    async def _handle(self, visit: Visit, outgoing: Outgoing, leg: Leg | None) -> None:
        """All that the straight way does not do. ``leg``: the first attempt, if it was begun."""
        status = CLIENT_LEFT
        try:
            if leg is None:
                visit.facts, visit.dossier = await self._placement.open(visit.facts, visit.id_value)
                status = await self._with_ticket(visit, outgoing)
            else:
                status = await self._try_workers(visit, outgoing, leg)
        except Refusal as refusal:
            status = refusal.status
            self._say(visit, refusal)
        except Cut as cut:
            status = 502
            log.warning("request %s was cut after its first byte: %s", visit.id_value, cut)
        finally:
            self.answered(visit, status)

    async def _with_ticket(self, visit: Visit, outgoing: Outgoing) -> int:
        """The status of the answer that was sent. Where there are limits, when they allow it."""
        if not self._admission.limited or visit.request.method in SAFE_METHODS:
            return await self._try_workers(visit, outgoing)
        name, tokens = self._name_of(visit.request), visit.facts.route.prompt_tokens
        visit.ticket = await self._admission.enter(name, tokens)
        try:
            return await self._try_workers(visit, outgoing)
        finally:
            visit.ticket.release()

    async def _try_workers(self, visit: Visit, outgoing: Outgoing, leg: Leg | None = None) -> int:
        attempts = Attempts(self._retries, visit.replayable, self._random)
        while True:
            if leg is None:
                placed = await self._place(visit, attempts)
                if placed is None:
                    return self._give_up(visit, attempts)
                leg = self._exchange.begin(visit, *placed)
            worker, running, leg = leg.worker, leg, None
            broken: Cut | None = None
            try:
                return await self._exchange.finish(visit, running, outgoing)
            except UpstreamError as error:
                if not self._failed(visit, worker, error, attempts):
                    return self._give_up(visit, attempts)
            except Cut as cut:
                broken = cut  # not awaited in here: compiled, the exception would stay the current one for everybody
            finally:
                if visit.ticket is not None:
                    self._admission.done(worker.url)
            if broken is not None:
                continued = await self._go_on(visit, worker, outgoing, attempts)
                if continued is None:
                    raise broken
                if isinstance(continued, int):
                    return continued
                outgoing = continued
                log.warning("request %s was cut and goes on elsewhere: %s", visit.id_value, broken)

    async def _place(self, visit: Visit, attempts: Attempts) -> tuple[Worker, Decision] | None:
        """A worker to send to; None when there is nobody. With limits it has room, which the request takes."""
        eligible = await self._eligible(visit, attempts)
        if not eligible or visit.ticket is None:
            return self._choose(visit, eligible) if eligible else None
        admission = self._admission
        taken: list[tuple[Worker, Decision]] = []

        def take() -> bool:
            workers = self._candidates(visit, attempts)
            roomy = [w for w in workers if admission.has_room(w.url, w.spec.max_concurrent_requests)]
            if roomy:
                taken.append(self._choose(visit, roomy))
                admission.sent(taken[0][0].url)
            return bool(roomy)

        await admission.wait_for_worker(visit.ticket, take, lambda: admission.done(taken[0][0].url))
        return taken[0]

    def _choose(self, visit: Visit, workers: list[Worker]) -> tuple[Worker, Decision]:
        now = now_seconds()
        return self._placement.choose(visit.facts.route, self._guards.usable(workers, now), now, visit.dossier)

    async def _go_on(
        self, visit: Visit, worker: Worker, outgoing: Outgoing, attempts: Attempts
    ) -> Outgoing | int | None:
        """After a cut: what continues the stream elsewhere, the status when it is whole, or None: the cut stands."""
        transcript, now = visit.transcript, now_seconds()
        if transcript is None or self._continuation is None:
            return None
        if transcript.finished or transcript.done:
            visit.client.write(transcript.closing(), end=True)
            return 200
        self._budget.failed(worker.url, self._placement.leases.load(worker.url).requests + 1, now)
        continued = None
        if not attempts.note(worker.url, Failure.RESET) or visit.expired:
            log.warning("request %s is not continued: its attempts or its time are over", visit.id_value)
        elif not self._budget.take(now):
            self._metrics.retries_denied.inc()
            log.warning("request %s is not continued: the retry budget is spent", visit.id_value)
        else:
            continued = await self._continuation.next_request(
                visit.id_value, transcript, outgoing, visit.facts.model, attempts.excluded
            )
        if continued is None:
            visit.client.break_off()
        return continued

    async def _eligible(self, visit: Visit, attempts: Attempts) -> list[Worker]:
        """Workers to choose from; when all were tried, those that may do better after a pause."""
        eligible = self._candidates(visit, attempts)
        if not eligible and (pause := attempts.next_round()) is not None:
            await asyncio.sleep(pause)
            eligible = self._candidates(visit, attempts)
        return eligible

    def _candidates(self, visit: Visit, attempts: Attempts) -> list[Worker]:
        """Workers that were not tried: healthy ones, and only if there are none the others."""
        model, excluded = visit.facts.model, attempts.excluded
        return self._registry.eligible(model, excluded) or self._registry.last_resort(model, excluded)

    def _failed(self, visit: Visit, worker: Worker, error: UpstreamError, attempts: Attempts) -> bool:
        """Note a failed attempt. True when another one may follow."""
        failure, now = error.failure, now_seconds()
        if failure is not Failure.STALE:
            log.warning("request %s failed on worker %s: %s", visit.id_value, worker.url, error)
        if error.retry_after is not None:
            self._guards.rest(worker.url, error.retry_after, now)
        if failure not in _BLAMELESS:
            self._suspect(worker)
            self._budget.failed(worker.url, self._placement.leases.load(worker.url).requests + 1, now)
        again = attempts.note(worker.url, failure, error.status, error.retry_after) and not visit.expired
        if again and failure not in _FREE and not self._budget.take(now):
            self._metrics.retries_denied.inc()
            return False
        if again:
            self._metrics.retries.labels(failure.value).inc()
        return again

    def _give_up(self, visit: Visit, attempts: Attempts) -> int:
        if visit.client.begun:
            visit.client.break_off()
            raise Cut("no backend could go on with it")
        if visit.kept is not None:
            visit.client.reply(visit.kept)
            return visit.kept.status
        if attempts.last is None:
            raise unavailable("No healthy backend can take this request now.", code="no_healthy_backend")
        tried = f"{attempts.count} attempt{'s' if attempts.count > 1 else ''}"
        if attempts.last in (Failure.TIMEOUT, Failure.SILENT):
            raise gateway_timeout(f"No backend answered in time ({tried}).")
        raise bad_gateway(f"No backend could answer the request ({tried}).")


def _shutting_down() -> Refusal:
    return unavailable("The router is shutting down.", code="shutting_down", close=True)
