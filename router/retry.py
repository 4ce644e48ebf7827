"""Which worker a request may go to next after an attempt failed, and whether it may go at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from router.config import RetrySettings

RETRIABLE_STATUSES = frozenset({429, 500, 502, 503, 504})


class Failure(StrEnum):
    """What went wrong with an attempt before its first byte; also a metric label."""

    CONNECT = "connect"  # nothing was sent
    STALE = "stale"  # a kept connection was closed before the answer began: no fault of the worker
    RESET = "reset"
    EMPTY = "empty"  # an answer without a byte
    TIMEOUT = "timeout"
    SILENT = "silent"  # no first byte, and none from its probes either
    STATUS = "status"  # a 5xx
    BUSY = "busy"  # a 429, or a 503 that says when to come back: no fault of the worker


# A silent worker may only have been held up: where nobody else is left it is better than an error.
_AGAIN_ON_THE_SAME = frozenset({Failure.CONNECT, Failure.STALE, Failure.RESET, Failure.EMPTY, Failure.SILENT})


@dataclass(frozen=True, slots=True)
class _Failed:
    worker: str
    repeatable: bool  # the same worker may do better after a pause
    pause: float  # the least one, in seconds, as the worker said


class Attempts:
    """The history of one request: what failed where, who is excluded, how many tries are left.

    ``replayable``: the request may be sent twice. If not, only an attempt that sent nothing is followed by another.
    """

    def __init__(self, settings: RetrySettings, replayable: bool, random: Random) -> None:
        self._settings = settings
        self._replayable = replayable
        self._random = random
        self._failed: list[_Failed] = []
        self._rounds = 0
        self._stale_used = False
        self.last: Failure | None = None
        self.excluded: set[str] = set()

    @property
    def count(self) -> int:
        """Attempts that failed; a stale connection is no attempt."""
        return len(self._failed)

    def note(self, worker: str, failure: Failure, status: int = 0, retry_after: float | None = None) -> bool:
        """Remember a failed attempt. True when the request may be sent again. ``retry_after``: seconds, as it said."""
        if failure is Failure.STALE and self._replayable and not self._stale_used:
            self._stale_used = True
            return True
        repeatable = failure in _AGAIN_ON_THE_SAME or status in (502, 503) or retry_after is not None
        self._failed.append(_Failed(worker, repeatable, retry_after or 0.0))
        self.last = failure
        self.excluded.add(worker)
        return self.count < self._settings.attempts and (self._replayable or failure is Failure.CONNECT)

    def next_round(self) -> float | None:
        """Everybody was tried: seconds to wait before those that may do better are tried again; None: give up."""
        again = self._worth_another()
        if not again or self.count >= self._settings.attempts:
            return None
        settings = self._settings
        backoff = min(settings.initial_backoff * settings.multiplier**self._rounds, settings.max_backoff)
        backoff *= 1 + settings.jitter * self._random.uniform(-1, 1)
        pause = max(backoff, min(again.values()))
        if pause > max(backoff, settings.max_backoff):
            return None
        self._rounds += 1
        self.excluded -= {worker for worker, least in again.items() if least <= pause}
        return pause

    def _worth_another(self) -> dict[str, float]:
        """Workers that may do better after a pause, and the least pause of each."""
        again = {failed.worker: failed.pause for failed in self._failed if failed.repeatable}
        for failed in self._failed:
            if not failed.repeatable:
                again.pop(failed.worker, None)
        return again
