"""Notices that a worker lost its cache (a restart or a flush at the same address) from what its answers report.

One report far below the prediction may be an eviction. Then two hypotheses are held against each other: the worker
knows what it was ever sent, or only what it was sent since. A report that the second explains and the first does not is
a strike; one that only the first explains ends the suspicion. The third strike means that the cache was lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.prefix.node import common_length

STRIKES = 3
FAR_BELOW = 0.6  # a report under this share of a prediction does not confirm it
SLACK_TOKENS = 64  # pages, template tokens
PATIENCE = 40  # reports after which a suspicion without proof ends
KEPT, KEPT_BYTES = 32, 2**20  # prompts remembered of each worker, to know what it was sent since
ALL_BYTES = 2**25  # of all workers together


class Sent(NamedTuple):
    """A prompt that a worker was sent."""

    at: float
    key: str  # the namespace
    text: bytes
    held: int  # leading bytes that it was thought to hold


@dataclass(slots=True)
class _Watch:
    """One worker."""

    sent: deque[Sent] = field(default_factory=deque)
    sent_bytes: int = 0
    since: float | None = None  # when the prompt was sent that raised the suspicion
    strikes: int = 0
    reports: int = 0

    def clear(self) -> None:
        self.since, self.strikes, self.reports = None, 0, 0


class RestartDetector:
    """Tell it what is sent and what is reported; it tells what a worker that restarted still has."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._room = KEPT_BYTES  # of each worker

    def sent(self, worker: str, prompt: Sent) -> None:
        """``worker`` gets ``prompt``."""
        watch = self._watches.get(worker)
        if watch is None:
            watch = self._watches[worker] = _Watch()
            self._share()
        watch.sent.append(prompt)
        watch.sent_bytes += len(prompt.text)
        while len(watch.sent) > KEPT or (watch.sent_bytes > self._room and len(watch.sent) > 1):
            watch.sent_bytes -= len(watch.sent.popleft().text)

    def find(self, worker: str, key: str, text: bytes) -> Sent | None:
        """The latest time that ``worker`` got this prompt, if it is remembered."""
        watch = self._watches.get(worker)
        if watch is None:
            return None
        return next((prompt for prompt in reversed(watch.sent) if prompt.text == text and prompt.key == key), None)

    def reported(self, worker: str, prompt: Sent, cached: int, tokens: int) -> list[Sent] | None:
        """``worker`` had ``cached`` of the ``tokens`` of ``prompt``.

        Returns None, or, when it has lost its cache, the prompts that it was sent since.
        """
        watch = self._watches[worker]
        predicted = prompt.held * tokens // len(prompt.text)
        below = cached + SLACK_TOKENS < predicted * FAR_BELOW
        if watch.since is None:
            if not below:
                return None
            watch.since = prompt.at
        self._weigh(watch, prompt, below, cached, tokens)
        if watch.strikes < STRIKES:
            return None
        kept = [other for other in watch.sent if other.at >= (watch.since or 0.0)]
        watch.clear()
        return kept

    def _weigh(self, watch: _Watch, prompt: Sent, below: bool, cached: int, tokens: int) -> None:
        """Which hypothesis the report speaks for."""
        since = watch.since or 0.0
        others = [sent for sent in watch.sent if sent.key == prompt.key and since <= sent.at < prompt.at]
        known = max((common_length(sent.text, prompt.text, 0) for sent in others), default=0)
        explained = cached <= known * tokens // len(prompt.text) + SLACK_TOKENS
        watch.reports += 1
        if below and explained:
            watch.strikes += 1
        elif (not below and not explained) or watch.reports >= PATIENCE:
            watch.clear()

    def forget(self, worker: str) -> None:
        self._watches.pop(worker, None)
        self._share()

    def _share(self) -> None:
        self._room = min(KEPT_BYTES, ALL_BYTES // max(1, len(self._watches)))
