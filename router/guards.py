"""What keeps requests away from a worker that is healthy by its checks: its breaker, a rest that it asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.breaker import Breaker, BreakerState, Permit
from router.config import BreakerSettings
from router.fleet.worker import Worker

Changed = Callable[[str, BreakerState], None]

_BLAMED = frozenset({"connect", "reset", "empty", "timeout", "status", "cut"})
_SILENT = "silent"  # found by probes of its own, so that one is enough
_WELL = "ok"


class Guards:
    """One breaker for each worker. ``changed`` hears of every breaker that opens or closes.

    Nobody is left without an answer for a guard's sake: when all workers are guarded off, all may be tried.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        changed: Changed = lambda _url, _state: None,
        make: Callable[[str], Breaker] | None = None,
    ) -> None:
        """``make`` makes the breaker of a worker."""
        self._settings = settings
        self._changed = changed
        self._make = make or (lambda _url: Breaker(settings))
        self._breakers: dict[str, Breaker] = {}
        self._rests: dict[str, float] = {}  # until when, by worker
        self._guarded: set[str] = set()  # workers whose breaker is not closed or that rest: usually none
        self._tripped: set[str] = set()  # those of them whose breaker is not closed

    def add(self, url: str) -> None:
        """A worker came."""
        if not self._settings.disabled:
            self._breakers[url] = self._make(url)

    def remove(self, url: str) -> None:
        """A worker went, and what is known of its faults with it."""
        self._breakers.pop(url, None)
        self._rests.pop(url, None)
        self._guarded.discard(url)
        self._tripped.discard(url)

    def usable(self, workers: Sequence[Worker], now: float) -> Sequence[Worker]:
        """Those of ``workers`` that no guard speaks against, or all when there is none."""
        if not self._guarded:
            return workers
        return [worker for worker in workers if self._admits(worker.url, now)] or workers

    def begin(self, url: str, now: float) -> Permit | None:
        """A request is sent to ``url`` now; hand the permit to :meth:`settle`. None: there is no breaker."""
        breaker = self._breakers.get(url)
        return None if breaker is None else breaker.begin(now)

    def first_byte(self, permit: Permit | None, url: str, now: float) -> None:
        """The answer began."""
        if permit is not None and url in self._guarded:
            permit.first_byte()
            self.look(url, now)

    def settle(self, permit: Permit | None, url: str, outcome: str, now: float) -> None:
        """The request ended with ``outcome``, as the attempt's metric says it."""
        if permit is None:
            return
        if outcome == _WELL:
            permit.success()
            if url not in self._guarded:  # it is closed, and stays so
                return
        elif outcome in _BLAMED:
            permit.failure(now)
        elif outcome == _SILENT:
            permit.trip(now)
        else:
            permit.neutral()
        self.look(url, now)

    def rest(self, url: str, seconds: float, now: float) -> None:
        """The worker asked for a pause (Retry-After): others are preferred until then."""
        self.rest_until(url, now + seconds)

    def rest_until(self, url: str, until: float) -> None:
        """Others are preferred until then, at least."""
        self._rests[url] = max(until, self._rests.get(url, until))
        self._guarded.add(url)

    def recovered(self, url: str, now: float) -> None:
        """The worker passes its health checks again."""
        if (breaker := self._breakers.get(url)) is not None:
            breaker.recheck(now)

    def breaker(self, url: str) -> Breaker | None:
        return self._breakers.get(url)

    def rests_until(self, url: str) -> float | None:
        return self._rests.get(url)

    def state(self, url: str, now: float) -> BreakerState:
        breaker = self._breakers.get(url)
        return BreakerState.CLOSED if breaker is None else breaker.state(now)

    def _admits(self, url: str, now: float) -> bool:
        if now < self._rests.get(url, now):
            return False
        if self._rests.pop(url, None) is not None:
            self.look(url, now)
        breaker = self._breakers.get(url)
        return breaker is None or breaker.admits(now)

    def look(self, url: str, now: float) -> None:
        """Keep ``_guarded`` true, and tell when the breaker turned."""
        breaker = self._breakers.get(url)
        tripped = breaker is not None and not breaker.closed
        if tripped or url in self._rests:
            self._guarded.add(url)
        else:
            self._guarded.discard(url)
        if breaker is not None and tripped is not (url in self._tripped):
            self._tripped ^= {url}
            self._changed(url, breaker.state(now))
