"""Which worker a request may go to next after an attempt failed, and whether it may go at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from router.config import RetrySettings

RETRIABLE_STATUSES = frozenset({500, 502, 503, 504})


class Failure(StrEnum):
    """What went wrong with an attempt before its first byte; also a metric label."""

    CONNECT = "connect"  # nothing was sent
    STALE = "stale"  # a kept connection was closed before the answer began: no fault of the worker
    RESET = "reset"
    EMPTY = "empty"  # an answer without a byte
    TIMEOUT = "timeout"
    STATUS = "status"  # a 5xx


_AGAIN_ON_THE_SAME = frozenset({Failure.CONNECT, Failure.STALE, Failure.RESET, Failure.EMPTY})


@dataclass(frozen=True, slots=True)
class _Failed:
    worker: str
    failure: Failure
    repeatable: bool  # the same worker may do better after a pause


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
        self.excluded: set[str] = set()

    @property
    def count(self) -> int:
        """Attempts that failed; a stale connection is no attempt."""
        return len(self._failed)

    @property
    def last(self) -> Failure | None:
        return self._failed[-1].failure if self._failed else None

    def note(self, worker: str, failure: Failure, status: int = 0) -> bool:
        """Remember a failed attempt. True when the request may be sent again."""
        if failure is Failure.STALE and self._replayable and not self._stale_used:
            self._stale_used = True
            return True
        repeatable = failure in _AGAIN_ON_THE_SAME or status in (502, 503)
        self._failed.append(_Failed(worker, failure, repeatable))
        self.excluded.add(worker)
        return self.count < self._settings.attempts and (self._replayable or failure is Failure.CONNECT)

    def next_round(self) -> float | None:
        """Everybody was tried: seconds to wait before those that may do better are tried again; None: give up."""
        again = {failed.worker for failed in self._failed if failed.repeatable}
        again -= {failed.worker for failed in self._failed if not failed.repeatable}
        if not again or self.count >= self._settings.attempts:
            return None
        self.excluded -= again
        pause = self._settings.initial_backoff * self._settings.multiplier**self._rounds
        self._rounds += 1
        return min(pause, self._settings.max_backoff) * (1 + self._settings.jitter * self._random.uniform(-1, 1))
