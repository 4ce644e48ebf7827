"""One attempt at one worker: book, send, wait for the first byte, relay, settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from policies.policy import Decision
from router.admission import Ticket
from router.answer_tail import Tail, cached_at_head
from router.body import NO_FACTS, Facts
from router.dossier import Dossier
from router.event_relay import is_stream, relay_events
from router.explain import header_line
from router.fleet.worker import Worker
from router.guards import Guards
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
from router.silence import Silence, Wait
from router.upstream import Outgoing, Upstream, UpstreamError
from router.usage_relay import can_filter, relay_without_usage

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEPT_ANSWER_BYTES = 256 * 1024  # of a 5xx that may yet be the last word


NO_DOSSIER = Dossier()


class Visit:
    """What is known of one client request while it is served."""

    __slots__ = (
        "client", "deadline", "dossier", "explain", "facts", "id_name", "id_value", "kept", "outgoing", "request",
        "started", "ticket", "transcript", "usage_asked",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        client: ResponseWriter,
        started: float,
        deadline: float | None,
        identity: tuple[str, str],
    ) -> None:
        self.request = request
        self.client = client
        self.started = started  # in now_seconds()
        self.deadline = deadline  # in seconds of the event loop's clock
        self.id_name, self.id_value = identity
        self.facts: Facts = NO_FACTS
        self.dossier = NO_DOSSIER  # until placement opens one
        self.outgoing: Outgoing | None = None  # set when its body was read
        self.transcript: Transcript | None = None  # of a stream that may go on elsewhere after a cut
        self.ticket: Ticket | None = None  # when there are limits
        self.kept: Reply | None = None  # the last 5xx of a worker, relayed when no other attempt does better
        self.explain = False  # the decision is told in a header
        self.usage_asked = False  # the router asked for an event that the client does not expect

    @property
    def expired(self) -> bool:
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    @property
    def replayable(self) -> bool:
        """May the request be sent to a second worker although a first one may have begun to work on it?"""
        return self.facts.inference or self.request.method in SAFE_METHODS


class Leg:
    """One attempt at one worker, as long as it is under way: the lease, the permit past the breaker, the watch for
    silence, and the answer once the request was sent.

    A context manager: leaving it gives all of them back, whatever happened. ``outcome`` is what the attempt's metric
    will say. :meth:`over` does the same for those that cannot wait in a block; it counts once.
    """

    __slots__ = (
        "_guards", "_open", "_permit", "_silence", "_url", "_wait", "_watched", "answer", "booking", "cached",
        "outcome", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, booking: Booking, guards: Guards, silence: Silence, now: float) -> None:
        self.worker = worker
        self.booking = booking
        self.answer: Answer | None = None
        self.cached: int | None = None  # tokens, when the answer's head told
        self.outcome = "client_gone"  # unless somebody says otherwise before the end
        self._guards = guards
        self._silence = silence
        self._open = self._watched = True
        self._url = url = worker.url
        self._permit = guards.begin(url, now)
        self._wait = silence.begin(url, now, booking.patience(silence.after))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over()

    @property
    def watch(self) -> Wait:
        """Who may give the answer up."""
        return self._wait

    def first_byte(self) -> None:
        """The answer began: nobody probes the worker for its sake any more."""
        self._watched = False
        self._silence.end(self._wait, answered=True)

    def good(self, now: float) -> None:
        """What began is no error."""
        self._guards.first_byte(self._permit, self._url, now)

    def over(self) -> None:
        if not self._open:
            return
        self._open = False
        if self.answer is not None:
            self.answer.close()
        if self._watched:
            self._silence.end(self._wait, answered=False)
        self.booking.settle(self.outcome)
        self._guards.settle(self._permit, self._url, self.outcome, now_seconds())


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

    def begin(self, visit: Visit, worker: Worker, decision: Decision, outgoing: Outgoing | None = None) -> Leg:
        """The request is as good as sent to ``worker``: book it. Whoever gets the leg has to end it.

        ``outgoing`` is sent at once if there is an idle connection; then the leg has its answer to come.
        """
        now = now_seconds()
        booking = self._placement.book(visit.facts.route, decision, now, visit.dossier)
        leg = Leg(worker, booking, self._guards, self._silence, now)
        try:
            if outgoing is not None:
                self._send_now(visit, leg, outgoing)
            booking.record(now)  # behind the sending: the worker need not wait for it
        except BaseException:
            leg.over()
            raise
        return leg

    def _send_now(self, visit: Visit, leg: Leg, outgoing: Outgoing) -> None:
        answer = leg.answer = self._upstream.send_now(leg.worker, outgoing, visit.deadline)
        if answer is not None:
            leg.watch.can_end(answer.give_up)

    async def finish(self, visit: Visit, leg: Leg, outgoing: Outgoing) -> int:
        """Send if that was not done, and relay the answer, whose status is returned. Ends the leg.

        Raises UpstreamError as long as the client has seen nothing.
        """
        with leg:
            try:
                status = await self._exchange(visit, leg, outgoing)
            except UpstreamError as error:
                leg.outcome = error.failure.value
                raise
            except Cut:
                self.cut(leg)
                raise
            leg.outcome = outcome_of(status)
            return status

    def cut(self, leg: Leg) -> None:
        """The answer broke off after the client had seen its beginning."""
        leg.outcome = "cut"
        self._suspect(leg.worker)

    async def _exchange(self, visit: Visit, leg: Leg, outgoing: Outgoing) -> int:
        answer = await self._first_byte(visit, leg, outgoing)
        await self._reject_bad(visit, answer)
        good = answer.status < 400
        self.first_byte(visit, leg, good)
        if good and visit.facts.inference and not visit.facts.stream:
            await _hold(answer)
        tail = Tail()
        head = to_client(answer, visit.id_name, visit.id_value)
        if visit.explain:
            head += header_line(visit.dossier, leg.worker.id)
        if visit.transcript is not None and is_stream(answer):
            await relay_events(visit.client, answer, head, tail, visit.transcript)
        else:
            visit.transcript = None
            send = relay_without_usage if visit.usage_asked and can_filter(answer) else relay
            await send(visit.client, answer, head, tail)
        if good and visit.facts.inference:
            leg.booking.finished(tail, now_seconds())
        return answer.status

    async def _first_byte(self, visit: Visit, leg: Leg, outgoing: Outgoing) -> Answer:
        """The answer at its first byte. The worker is watched meanwhile."""
        try:
            if leg.answer is None:
                leg.answer = await self._upstream.send(leg.worker, outgoing, visit.deadline, leg.watch)
            answer = leg.answer
            await answer.head()
            self.head(visit, leg, answer)
            await answer.peek()
        except Fault as fault:
            raise UpstreamError.of(fault) from fault
        leg.first_byte()
        return answer

    def head(self, visit: Visit, leg: Leg, answer: Answer) -> None:
        """The answer's head is there. One that tells the cached tokens came with the first token."""
        if answer.status < 400 and leg.cached is None and (cached := cached_at_head(answer.pairs)) is not None:
            leg.cached = cached
            self._first_token(visit, leg.booking, cached, True)

    def first_byte(self, visit: Visit, leg: Leg, good: bool) -> None:
        """The first byte of an answer that will be relayed is there; ``good``: it is no error."""
        if good:
            leg.good(now_seconds())
        if leg.cached is None:
            self._first_token(visit, leg.booking, None, good and visit.facts.stream)

    def _first_token(self, visit: Visit, booking: Booking, cached: int | None, timed: bool) -> None:
        """``timed``: what came is the first token, not a whole answer or an error."""
        now = now_seconds()
        booking.first_token(now, cached, teach=timed)
        if timed:
            self._metrics.first_token(visit.facts.model, now - visit.started)

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
            lines = to_client(answer, visit.id_name, visit.id_value)
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


def outcome_of(status: int) -> str:
    """What the attempt's metric calls a relayed answer."""
    return "ok" if status < 400 else "client_error" if status < 500 else "status"


now_seconds = time.monotonic  # finer than the event loop's clock, which stands still within a turn
