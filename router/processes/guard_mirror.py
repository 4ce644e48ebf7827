"""Breakers as a data process has them: it looks at copies, and tells the owner what happened to its requests."""

from __future__ import annotations

from collections.abc import Callable

from router.breaker import Breaker
from router.config import BreakerSettings
from router.guards import Guards
from router.processes.messages import BreakerView, Message, Rest, Verdict

Send = Callable[[Message], None]


class BreakerMirror(Breaker):
    """The owner's breaker, as its last snapshot showed it. What would change it is sent instead."""

    def __init__(self, settings: BreakerSettings, url: str, send: Send) -> None:
        super().__init__(settings)
        self._url = url
        self._send = send
        self._tense = False

    def show(self, view: BreakerView) -> None:
        """From now on it is like that."""
        self.period = view.period
        self._open_until = view.open_until
        self._probe_since = view.probe_since
        self._tense = view.tense

    def begun(self, now: float) -> None:
        super().begun(now)
        self._tell("begun")

    def trip(self, now: float) -> None:
        self._tell("trip")

    def failed(self, now: float, probe: bool) -> None:
        self._tense = True
        self._tell("failed", probe)

    def probe_answered(self) -> None:
        self._tell("probe_answered")

    def answered(self) -> None:
        if self._tense:
            self._tell("answered")

    def probe_left(self) -> None:
        self._tell("probe_left")

    def recheck(self, now: float) -> None:
        """The owner sees to it."""

    def _tell(self, what: str, probe: bool = False) -> None:
        self._send(Verdict(self._url, self.period, what, probe))


class GuardMirror(Guards):
    """The guards of a data process."""

    def __init__(self, settings: BreakerSettings, send: Send) -> None:
        super().__init__(settings, make=lambda url: BreakerMirror(settings, url, send))
        self._send = send

    def rest(self, url: str, seconds: float, now: float) -> None:
        super().rest(url, seconds, now)
        self._send(Rest(url, now + seconds))

    def show(self, url: str, view: BreakerView | None, rest_until: float | None, now: float) -> None:
        """What the owner's snapshot says of a worker."""
        breaker = self.breaker(url)
        if view is not None and isinstance(breaker, BreakerMirror):
            breaker.show(view)
        if rest_until is not None and rest_until > now:
            self.rest_until(url, rest_until)
        self.look(url, now)


def view_of(breaker: Breaker | None) -> BreakerView | None:
    """For a snapshot."""
    if breaker is None:
        return None
    return BreakerView(breaker.period, breaker.open_until, breaker.probe_since, breaker.tense)


def apply(guards: Guards, verdict: Verdict, now: float) -> None:
    """At the owner: what a data process says of a request, unless the breaker turned since that began."""
    breaker = guards.breaker(verdict.url)
    if breaker is None or breaker.period != verdict.period:
        return
    if verdict.what == "begun":
        breaker.begun(now)
    elif verdict.what == "trip":
        breaker.trip(now)
    elif verdict.what == "failed":
        breaker.failed(now, verdict.probe)
    elif verdict.what == "probe_answered":
        breaker.probe_answered()
    elif verdict.what == "answered":
        breaker.answered()
    elif verdict.what == "probe_left":
        breaker.probe_left()
    guards.look(verdict.url, now)
