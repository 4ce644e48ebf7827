"""Who may come in: rates, limits on requests at a time, and a fair line for those that have to wait.

429 says that the caller, or all callers together, asked for more than was agreed; 503 that the fleet could not serve in
time. Both say when to come back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from router.config import AdmissionSettings
from router.errors import Refusal, unavailable
from router.rate_limit import Bucket
from router.waiting_line import LineFull, WaitedTooLong, WaitingLine

Clock = Callable[[], float]
_MANY_BUCKETS = 10_000


class Ticket:
    """A request that was let in. ``release`` it once it is over; more often changes nothing."""

    __slots__ = ("_admission", "_held", "deadline", "key")

    def __init__(self, admission: Admission, key: str, deadline: float) -> None:
        self._admission = admission
        self.key = key
        self.deadline = deadline  # of waiting, on the admission's clock
        self._held = False

    def take(self) -> bool:
        """Hold one of the places for requests at a time, if there is one."""
        self._held = self._admission.take(self.key)
        return self._held

    def release(self) -> None:
        if self._held:
            self._held = False
            self._admission.give_back(self.key)


class Admission:
    """The limits of one router. ``shed`` counts each refusal by its reason."""

    def __init__(self, settings: AdmissionSettings, clock: Clock, shed: Callable[[str], None]) -> None:
        self._settings = settings
        self._any = settings.any
        self._clock = clock
        self._shed = shed
        self._line = WaitingLine(settings.queue_size)
        self.worker_limits = False  # a worker has a limit of its own
        self._running = 0
        self._by_key: Counter[str] = Counter()
        self._at_worker: Counter[str] = Counter()
        self._buckets: dict[tuple[str, str], Bucket] = {}  # by (what is limited, key); the router's own key is ""

    @property
    def limited(self) -> bool:
        """Is there any limit at all?"""
        return self.worker_limits or self._any

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def running(self) -> int:
        """Requests that were let in and are not over."""
        return self._running

    def look(self, key: str) -> None:
        """Before the body of a request is read: raise :class:`Refusal` (429) if it would be refused whatever it says.

        Nothing is charged or booked.
        """
        now, settings = self._clock(), self._settings
        for reason, name, rate in (
            ("rate_requests", "", settings.request_rate),
            ("key_rate_requests", key, settings.request_rate_per_key),
        ):
            if rate and (wait := self._bucket(reason, name, rate, now).wait(1, now)):
                raise self._too_fast(reason, wait)
        if not self._free(key) and not self._line.takes(key):
            raise self._no_place()

    async def enter(self, key: str, tokens: int) -> Ticket:
        """Let a request of ``key`` with ``tokens`` prompt tokens in. Raises :class:`Refusal` (429, 503)."""
        now = self._clock()
        self._pay(key, tokens, now)
        ticket = Ticket(self, key, now + self._settings.queue_timeout)
        await self._wait(ticket, ticket.take, ticket.release)
        return ticket

    def take(self, key: str) -> bool:
        """For :class:`Ticket`."""
        free = self._free(key)
        if free:
            self._running += 1
            self._by_key[key] += 1
        return free

    def _free(self, key: str) -> bool:
        """Is there a place among the requests at a time?"""
        settings = self._settings
        if settings.requests and self._running >= settings.requests:
            return False
        return not settings.requests_per_key or self._by_key.get(key, 0) < settings.requests_per_key

    def give_back(self, key: str) -> None:
        """For :class:`Ticket`."""
        self._running -= 1
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]
        self._line.move()

    def has_room(self, url: str, own_limit: int | None) -> bool:
        """May another request be sent to this worker? ``own_limit``: the worker's, in place of the one for all."""
        limit = own_limit or self._settings.requests_per_worker
        return not limit or self._at_worker[url] < limit

    def sent(self, url: str) -> None:
        """A request takes a place at the worker, until :meth:`done`."""
        self._at_worker[url] += 1

    def done(self, url: str) -> None:
        self._at_worker[url] -= 1
        if not self._at_worker[url]:
            del self._at_worker[url]
        self._line.move()

    async def wait_for_worker(self, ticket: Ticket, take: Callable[[], bool], give_back: Callable[[], None]) -> None:
        """Wait until ``take`` found a worker with room and called :meth:`sent`. Raises :class:`Refusal` (429, 503)."""
        await self._wait(ticket, take, give_back)

    def move(self) -> None:
        """The fleet changed: somebody who waits may find room now."""
        self._line.move()

    async def _wait(self, ticket: Ticket, take: Callable[[], bool], give_back: Callable[[], None]) -> None:
        try:
            await self._line.until(ticket.key, take, give_back, ticket.deadline - self._clock())
        except LineFull:
            raise self._no_place() from None
        except WaitedTooLong:
            self._shed("queue_timeout")
            raise unavailable("The request waited too long for a free backend.", code="queue_timeout") from None

    def _pay(self, key: str, tokens: int, now: float) -> None:
        """Charge all rates, or none of them and raise :class:`Refusal` (429)."""
        settings, due = self._settings, []
        for reason, name, rate, cost in (
            ("rate_requests", "", settings.request_rate, 1),
            ("rate_tokens", "", settings.token_rate, tokens),
            ("key_rate_requests", key, settings.request_rate_per_key, 1),
            ("key_rate_tokens", key, settings.token_rate_per_key, tokens),
        ):
            if rate:
                bucket = self._bucket(reason, name, rate, now)
                if wait := bucket.wait(cost, now):
                    raise self._too_fast(reason, wait)
                due.append((bucket, cost))
        for bucket, cost in due:
            bucket.take(cost, now)

    def _no_place(self) -> Refusal:
        self._shed("queue_full")
        return _too_many("Too many requests are waiting.", "queue_full", 1.0)

    def _too_fast(self, reason: str, wait: float) -> Refusal:
        """Without the rate: with several processes that is only this one's share."""
        self._shed(reason)
        return _too_many(f"The rate limit of {_UNITS[reason]} is reached.", reason, wait)

    def _bucket(self, reason: str, name: str, rate: float, now: float) -> Bucket:
        if len(self._buckets) >= _MANY_BUCKETS:
            self._buckets = {which: bucket for which, bucket in self._buckets.items() if not bucket.full(now)}
        return self._buckets.setdefault((reason, name), Bucket(rate, now))


_UNITS = {
    "rate_requests": "requests",
    "rate_tokens": "prompt tokens",
    "key_rate_requests": "requests of one key",
    "key_rate_tokens": "prompt tokens of one key",
}


def _too_many(message: str, code: str, wait: float) -> Refusal:
    return Refusal(429, message, kind="rate_limit_error", code=code, retry_after=max(1, math.ceil(wait)))
