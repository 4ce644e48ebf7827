"""One attempt at one worker: book, send, wait for the first byte, relay, settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from policies.policy import Decision
from router.admission import Ticket
from router.answer_tail import Tail, cached_at_head
from router.body import Facts
from router.breaker import Permit
from router.dossier import Dossier
from router.event_relay import is_stream, relay_events
from router.explain import header_line
from router.fleet.worker import Worker
from router.headers import to_client
from router.http.answer import Answer, Fault
from router.http.message import Reply, Request
from router.http.response import ResponseWriter
from router.metrics import Metrics
from router.placement import Booking, Placement
from router.protection import Protection
from router.relay import Cut, relay
from router.resume import Transcript
from router.retry import RETRIABLE_STATUSES, Failure
from router.retry_after import retry_after_seconds
from router.upstream import Outgoing, Upstream, UpstreamError
from router.usage_relay import can_filter, relay_without_usage

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEPT_ANSWER_BYTES = 256 * 1024  # of a 5xx that may yet be the last word


@dataclass(slots=True)
class Visit:
    """What is known of one client request while it is served."""

    request: Request
    client: ResponseWriter
    started: float  # in now_seconds()
    deadline: float | None  # in seconds of the event loop's clock
    id_name: str
    id_value: str
    facts: Facts = field(default_factory=Facts)
    transcript: Transcript | None = None  # of a stream that may go on elsewhere after a cut
    ticket: Ticket | None = None  # when there are limits
    kept: Reply | None = None  # the last 5xx of a worker, relayed when no other attempt does better
    dossier: Dossier = field(default_factory=Dossier)
    explain: bool = False  # the decision is told in a header
    usage_asked: bool = False  # the router asked for an event that the client does not expect

    @property
    def expired(self) -> bool:
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    @property
    def replayable(self) -> bool:
        """May the request be sent to a second worker although a first one may have begun to work on it?"""
        return self.facts.inference or self.request.method in SAFE_METHODS


class Exchange:
    """Sends requests to workers that were chosen for them."""

    def __init__(
        self,
        placement: Placement,
        upstream: Upstream,
        metrics: Metrics,
        suspect: Callable[[Worker], None],
        protection: Protection,
    ) -> None:
        self._placement = placement
        self._upstream = upstream
        self._metrics = metrics
        self._suspect = suspect
        self._guards = protection.guards
        self._silence = protection.silence

    async def attempt(self, visit: Visit, worker: Worker, decision: Decision, outgoing: Outgoing) -> int:
        """Send to ``worker`` and relay its answer, whose status is returned.

        Raises UpstreamError as long as the client has seen nothing.
        """
        now = now_seconds()
        with self._placement.book(visit.facts.route, decision, now, visit.dossier) as booking:
            booking.record(now)
            permit = self._guards.begin(worker.url, now)
            try:
                status = await self._exchange(visit, worker, outgoing, booking, permit)
            except UpstreamError as error:
                booking.outcome = error.failure.value
                raise
            except Cut:
                booking.outcome = "cut"
                self._suspect(worker)
                raise
            else:
                booking.outcome = _outcome(status)
                return status
            finally:
                self._guards.settle(permit, worker.url, booking.outcome, now_seconds())

    async def _exchange(
        self, visit: Visit, worker: Worker, outgoing: Outgoing, booking: Booking, permit: Permit | None
    ) -> int:
        answer, cached = await self._first_byte(visit, worker, outgoing, booking)
        with closing(answer):
            good = answer.status < 400
            await self._reject_bad(visit, answer)
            if good:
                self._guards.first_byte(permit, worker.url, now_seconds())
            if cached is None:
                self._first_token(visit, booking, None, good and visit.facts.stream)
            if good and visit.facts.inference and not visit.facts.stream:
                await _hold(answer)
            tail = Tail()
            head = to_client(answer.pairs, visit.id_name, visit.id_value)
            if visit.explain:
                head += header_line(visit.dossier, worker.id)
            if visit.transcript is not None and is_stream(answer):
                await relay_events(visit.client, answer, head, tail, visit.transcript)
            else:
                visit.transcript = None
                send = relay_without_usage if visit.usage_asked and can_filter(answer) else relay
                await send(visit.client, answer, head, tail)
            if good and visit.facts.inference:
                booking.finished(tail, now_seconds())
            return answer.status

    async def _first_byte(
        self, visit: Visit, worker: Worker, outgoing: Outgoing, booking: Booking
    ) -> tuple[Answer, int | None]:
        """(the answer at its first byte, the cached tokens that its head told). The worker is watched meanwhile."""
        patience = booking.patience(self._silence.after)
        wait = self._silence.begin(worker.url, now_seconds(), patience)
        answer, cached = None, None
        try:
            answer = await self._upstream.send(worker, outgoing, visit.deadline, wait)
            if answer.status < 400 and (cached := cached_at_head(answer.headers)) is not None:
                self._first_token(visit, booking, cached, True)  # this head came with the first token
            await answer.peek()
            self._silence.end(wait, answered=True)
            return answer, cached
        except BaseException as error:
            if answer is not None:
                answer.close()
            if isinstance(error, Fault):
                raise UpstreamError.of(error) from error
            raise
        finally:
            self._silence.end(wait, answered=False)

    def _first_token(self, visit: Visit, booking: Booking, cached: int | None, timed: bool) -> None:
        """``timed``: what came is the first token, not a whole answer or an error."""
        now = now_seconds()
        booking.first_token(now, cached, teach=timed)
        if timed:
            self._metrics.ttft.labels(self._metrics.model_label(visit.facts.model)).observe(now - visit.started)

    async def _reject_bad(self, visit: Visit, answer: Answer) -> None:
        """Raise UpstreamError for an answer that another worker may better; keep a 5xx in case none does."""
        if visit.facts.inference and answer.status < 300 and answer.complete and not answer.first:
            raise UpstreamError(Failure.EMPTY, "an answer without a byte")
        if visit.client.begun and not is_stream(answer):
            raise UpstreamError(Failure.STATUS, f"status {answer.status} to a continuation", answer.status)
        if not visit.replayable or answer.status not in RETRIABLE_STATUSES:
            return
        body = answer.first
        try:
            while not answer.complete and len(body) <= KEPT_ANSWER_BYTES:
                body += await answer.read()
        except Fault as fault:
            raise UpstreamError.of(fault) from fault
        if answer.complete:
            lines = to_client(answer.pairs, visit.id_name, visit.id_value)
            visit.kept = Reply(answer.status, body, lines=lines, reason=answer.reason)
        pause = retry_after_seconds(answer.headers.get("retry-after"), time.time())
        busy = answer.status == 429 or (answer.status == 503 and pause is not None)
        failure = Failure.BUSY if busy else Failure.STATUS
        raise UpstreamError(failure, f"status {answer.status}", answer.status, pause)


async def _hold(answer: Answer) -> None:
    """Wait for the rest of an answer that is of use only when it is whole: as long as nothing went out, others can try.

    A very long one is sent on as it comes all the same.
    """
    try:
        while not answer.complete and len(answer.first) <= KEPT_ANSWER_BYTES:
            answer.first += await answer.read()
    except Fault as fault:
        raise UpstreamError.of(fault) from fault


def _outcome(status: int) -> str:
    return "ok" if status < 400 else "client_error" if status < 500 else "status"


def now_seconds() -> float:
    """Finer than the event loop's clock, which stands still within a turn."""
    return time.monotonic()
