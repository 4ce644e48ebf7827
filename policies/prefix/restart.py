"""Notices that a worker lost its cache (a restart or a flush at the same address) from what its answers show.

One report far below the prediction may be an eviction. Then two hypotheses are held against each other: the worker
knows what it was ever sent, or only what it was sent since. A report that the second explains and the first does not is
a strike; one that only the first explains ends the suspicion. The third strike means that the cache was lost.

Times to first token come before reports, but prove less: one that speaks for the second hypothesis is a doubt, until
its prompt reports. With two of them, or one beside a strike, the worker is doubted: it is credited with what it was
sent since, until the question is settled. Where no answer reports, many doubts and no time against them are proof.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from policies.cost.felt import Felt
from policies.prefix.node import common_length

STRIKES, DOUBTS = 3, 2
FAR_BELOW = 0.6  # a report under this share of a prediction does not confirm it
SLACK_TOKENS = 64  # pages, template tokens
PATIENCE = 40  # answers after which a suspicion without proof ends
SELDOM = 8  # of a worker that reports, so many first tokens count as one answer: it may have ceased to report
KEPT, KEPT_BYTES = 32, 2**20  # prompts remembered of each worker, to know what it was sent since
SUSPECTED = 8  # times as many while it is suspected
ALL_BYTES = 2**25  # of all workers together


@dataclass(slots=True)
class Sent:
    """A prompt that a worker was sent."""

    at: float
    key: str  # the namespace
    text: bytes
    held: int  # leading bytes that it was thought to hold

    def tokens_of(self, length: int, tokens: int) -> int:
        """``length`` leading bytes of the text, which has ``tokens``."""
        return length * tokens // len(self.text)


@dataclass(slots=True)
class _Watch:
    """One worker."""

    sent: deque[Sent] = field(default_factory=deque)
    sent_bytes: int = 0
    since: float | None = None  # when the prompt was sent that raised the suspicion
    strikes: int = 0
    doubts: set[float] = field(default_factory=set)  # when the prompts were sent that cast them and did not report yet
    doubted: bool = False
    answers: float = 0.0  # since then; mostly those that reported, where any does
    reports: bool = False  # the worker does at all

    def suspect(self, since: float) -> None:
        if self.since is None:
            self.since = since

    def clear(self) -> None:
        self.since, self.strikes, self.doubted, self.answers = None, 0, False, 0.0
        self.doubts.clear()

    @property
    def proven(self) -> bool:
        if self.strikes:
            return self.strikes + len(self.doubts) >= STRIKES
        return self.answers >= PATIENCE and len(self.doubts) >= STRIKES

    def known_since(self, key: str, text: bytes, before: float = math.inf) -> int:
        """Leading bytes of ``text`` that were sent since the suspicion was raised, and before ``before``."""
        since = self.since or 0.0
        longest, more = 0, text[:1]
        for sent in self.sent:
            if since <= sent.at < before and sent.key == key and sent.text.startswith(more):
                longest = common_length(sent.text, text, 0)
                more = text[: longest + 1]
                if longest == len(text):
                    break
        return longest


class RestartDetector:
    """Tell it what is sent and what answers show; it tells what a worker that restarted still has."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._room = KEPT_BYTES  # of each worker
        self.doubted: set[str] = set()

    def sent(self, worker: str, prompt: Sent) -> None:
        """``worker`` gets ``prompt``."""
        watch = self._watches.get(worker)
        if watch is None:
            watch = self._watches[worker] = _Watch()
            self._share()
        watch.sent.append(prompt)
        watch.sent_bytes += len(prompt.text)
        more = 1 if watch.since is None else SUSPECTED
        while len(watch.sent) > KEPT * more or (watch.sent_bytes > self._room * more and len(watch.sent) > 1):
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
        watch.reports = True
        below = cached + SLACK_TOKENS < prompt.tokens_of(prompt.held, tokens) * FAR_BELOW
        if watch.since is None and not below:
            return None
        watch.suspect(prompt.at)
        watch.answers += 1
        watch.doubts.discard(prompt.at)
        explained = cached <= self._known(watch, prompt, tokens) + SLACK_TOKENS
        if below and explained:
            watch.strikes += 1
        return self._judge(worker, watch, prompt, innocent=not below and not explained)

    def felt(self, worker: str, prompt: Sent, felt: Felt, tokens: int) -> list[Sent] | None:
        """The first token of ``prompt`` came, and did not say what was cached. Returns the same."""
        watch = self._watches[worker]
        predicted = prompt.tokens_of(prompt.held, tokens)
        denied = felt.denies(tokens, predicted)
        if watch.since is None and not denied:
            return None
        watch.suspect(prompt.at)
        watch.answers += 1.0 / SELDOM if watch.reports else 1.0
        known = self._known(watch, prompt, tokens)
        if denied and not felt.denies(tokens, known):
            watch.doubts.add(prompt.at)
            watch.doubted = watch.doubted or watch.strikes + len(watch.doubts) >= DOUBTS
        return self._judge(worker, watch, prompt, innocent=not denied and felt.exceeds(tokens, known, predicted))

    def credit(self, worker: str, key: str, text: bytes) -> int:
        """Leading bytes of ``text`` that a doubted worker was sent since it is suspected."""
        return self._watches[worker].known_since(key, text)

    def forget(self, worker: str) -> None:
        self._watches.pop(worker, None)
        self.doubted.discard(worker)
        self._share()

    def _known(self, watch: _Watch, prompt: Sent, tokens: int) -> int:
        return prompt.tokens_of(watch.known_since(prompt.key, prompt.text, prompt.at), tokens)

    def _judge(self, worker: str, watch: _Watch, prompt: Sent, innocent: bool) -> list[Sent] | None:
        """After one piece of evidence more. ``innocent``: it is one that only old knowledge explains.

        A prompt that was sent before the suspicious one may have been computed before the cache was lost.
        """
        kept = None
        innocent = innocent and prompt.at >= (watch.since or 0.0)
        if watch.proven:
            kept = [other for other in watch.sent if other.at >= (watch.since or 0.0)]
        if watch.proven or innocent or watch.answers >= PATIENCE:
            watch.clear()
        (self.doubted.add if watch.doubted else self.doubted.discard)(worker)
        return kept

    def _share(self) -> None:
        self._room = min(KEPT_BYTES, ALL_BYTES // max(1, len(self._watches)))
