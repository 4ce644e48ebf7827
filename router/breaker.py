"""A circuit breaker for one worker: after failures in a row it rests, then one probe at a time shows how it is.

Time is an argument, in seconds on any monotonic clock. Only the worker's own faults count; what a client did does not.
"""

from __future__ import annotations

from enum import StrEnum

from router.config import BreakerSettings

PROBE_SECONDS = 5.0  # a probe that takes longer no longer holds the place of the next one


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Closed: everything passes. Open: nothing. Half open, when the cool-down is over: one probe.

    A worker that just came back is on trial: its next failure opens the breaker again, with a longer cool-down, until
    one whole answer came.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._failures = 0  # in a row, while closed
        self._successes = 0  # of probes, while half open
        self._open_until: float | None = None  # None: closed
        self._cool_down = settings.cool_down
        self._probe_since: float | None = None
        self.period = 0  # grows when the breaker opens or closes: attempts of an earlier one have no say

    def state(self, now: float) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    @property
    def closed(self) -> bool:
        return self._open_until is None

    @property
    def open_until(self) -> float | None:
        """When its cool-down ends; None: it is closed."""
        return self._open_until

    @property
    def probe_since(self) -> float | None:
        """Since when a probe is under way."""
        return self._probe_since

    @property
    def tense(self) -> bool:
        """Would a whole answer change anything while it is closed?"""
        return bool(self._failures) or self._cool_down != self._settings.cool_down

    def admits(self, now: float) -> bool:
        """May a request be sent now? No side effect."""
        if self._open_until is None:
            return True
        free = self._probe_since is None or now >= self._probe_since + PROBE_SECONDS
        return free and now >= self._open_until

    def begin(self, now: float) -> Permit:
        """A request is sent now. Also when :meth:`admits` says no: somebody had to take it."""
        probe = self._open_until is not None
        if probe:
            self.begun(now)
        return Permit(self, probe)

    def begun(self, now: float) -> None:
        """A probe was sent."""
        self._probe_since = now

    def trip(self, now: float) -> None:
        """Open at once, on stronger evidence than one failed request."""
        self._failures = 0
        self._successes = 0
        self._probe_since = None
        self._open_until = now + self._cool_down
        self._cool_down = min(self._cool_down * 2, self._settings.max_cool_down)
        self.period += 1

    def recheck(self, now: float) -> None:
        """Health checks pass again: do not wait for the cool-down to end."""
        if self._open_until is not None:
            self._open_until = min(self._open_until, now)
            self._cool_down = self._settings.cool_down

    def failed(self, now: float, probe: bool) -> None:
        """For :class:`Permit`."""
        self._failures += 1
        if probe or self._failures >= self._settings.failures:
            self.trip(now)

    def probe_answered(self) -> None:
        """For :class:`Permit`: the probe's first byte came."""
        self._probe_since = None
        self._successes += 1
        if self._successes >= self._settings.successes:
            self._open_until = None
            self._failures = self._settings.failures - 1  # on trial
            self.period += 1

    def answered(self) -> None:
        """For :class:`Permit`: a whole answer came."""
        self._failures = 0
        self._cool_down = self._settings.cool_down

    def probe_left(self) -> None:
        """For :class:`Permit`: the probe ended and showed nothing."""
        self._probe_since = None


class Permit:
    """One request on its way past a breaker. Its first verdict counts, unless the breaker turned meanwhile."""

    __slots__ = ("_breaker", "_done", "_period", "_probe")

    def __init__(self, breaker: Breaker, probe: bool) -> None:
        self._breaker = breaker
        self._probe = probe
        self._period = breaker.period
        self._done = False

    def first_byte(self) -> None:
        """The answer began: a probe succeeded, whatever comes later."""
        if self._probe and self._counts:
            self._breaker.probe_answered()
            self._probe = False
            self._period = self._breaker.period

    def success(self) -> None:
        """The whole answer came."""
        if self._probe:
            self.first_byte()
        if self._end() and self._breaker.closed:
            self._breaker.answered()

    def failure(self, now: float) -> None:
        """The worker is to blame: no connection, no answer, a 5xx, a cut."""
        if self._end():
            self._breaker.failed(now, self._probe)

    def trip(self, now: float) -> None:
        """The worker is out of order beyond doubt."""
        if self._end():
            self._breaker.trip(now)

    def neutral(self) -> None:
        """It ended without saying anything about the worker: a 4xx, a busy worker, a client that left."""
        if self._end() and self._probe:
            self._breaker.probe_left()

    @property
    def _counts(self) -> bool:
        return not self._done and self._period == self._breaker.period

    def _end(self) -> bool:
        counts = self._counts
        self._done = True
        return counts
