"""Placement of requests: ask the policy, book the lease, and tell back what became of it (the closed loop)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from policies.cost.felt import feel
from policies.cost.fleet_view import Held
from policies.cost.leases import LeaseBook
from policies.cost.rates import RateBook
from policies.policy import Candidate, Decision, Policy, RouteRequest, WorkerLoad
from router.answer_tail import Tail
from router.body import Facts, Form
from router.dossier import Attempt, Dossier, Watcher
from router.exact import ExactPrefixes, with_length
from router.fleet.worker import Worker
from router.metrics import Metrics
from router.prompt_text import PromptText
from router.rosters import Rosters


@dataclass(frozen=True, slots=True)
class Placement:
    """What decides where a request goes, and learns from how it went."""

    policy: Policy
    leases: LeaseBook
    speeds: RateBook
    prompt_text: PromptText
    metrics: Metrics
    exact: ExactPrefixes | None = None
    watchers: list[Watcher] = field(default_factory=list)
    rosters: Rosters = field(default_factory=Rosters)

    def choose(
        self, route: RouteRequest, workers: Sequence[Worker], now: float, dossier: Dossier | None = None
    ) -> tuple[Worker, Decision]:
        """One of ``workers`` (never empty). Nothing is booked; the decision is counted."""
        by_url, roster = self.rosters.of(workers, self.leases, self.speeds)
        held, holders = self._held(dossier)
        candidates = roster.view(now, held, holders)
        decision = self.policy.choose(route, candidates, now)
        self.metrics.decided(self.policy.name, decision)
        if dossier is not None:
            dossier.attempts.append(Attempt(decision, candidates, now))
            for watcher in self.watchers:
                watcher.chosen(dossier, route, dossier.attempts[-1])
        return by_url[decision.worker], decision

    def needs_tokens(self, facts: Facts) -> bool:
        """Is anybody's cache known exactly, and can it be compared with this prompt?"""
        return self.exact is not None and self.exact.wanted(facts)

    async def open(self, facts: Facts, request_id: str) -> tuple[Facts, Dossier]:
        """What is kept of a request. Its exact length and blocks are worked out if anybody's cache is known exactly."""
        dossier = Dossier(request_id, facts.form, facts.prompts)
        if self.exact is not None and self.needs_tokens(facts):
            dossier.tokens = await self.exact.tokens(facts)
            route = with_length(facts.route, dossier.tokens)
            facts = Facts(facts.model, facts.stream, facts.inference, route, facts.form, facts.prompts)
        return facts, dossier

    def candidates(self, workers: Sequence[Worker], now: float, dossier: Dossier | None = None) -> Sequence[Candidate]:
        """What is known of each worker, for this request."""
        return self.rosters.of(workers, self.leases, self.speeds).roster.view(now, *self._held(dossier))

    def _held(self, dossier: Dossier | None) -> tuple[Held | None, Sequence[str]]:
        """What tells the cached tokens of each worker exactly, when that can be known, and who has the most."""
        exact = self.exact
        if exact is None or dossier is None or (tokens := dossier.tokens) is None:
            return None, ()
        matched, form = exact.match(tokens), dossier.form
        holders = sorted(matched, key=lambda url: matched[url].tokens, reverse=True)
        return lambda url: exact.held(url, matched, tokens, form), holders

    def book(self, route: RouteRequest, decision: Decision, now: float, dossier: Dossier | None = None) -> Booking:
        """The request is sent to the chosen worker now."""
        return Booking(self, route, decision, now, dossier)

    def forget(self, url: str) -> None:
        """The worker is gone."""
        self.policy.forget(url)
        self.leases.forget(url)
        self.speeds.forget(url)
        self.rosters.clear()


class Booking:
    """One attempt on one worker. A context manager: leaving it releases the lease, whatever happened."""

    __slots__ = (
        "_attempt", "_before", "_cached_known", "_decision", "_dossier", "_lease", "_open_ms", "_placement",
        "_route", "_series", "_started", "outcome",
    )  # fmt: skip

    def __init__(
        self, placement: Placement, route: RouteRequest, decision: Decision, now: float, dossier: Dossier | None = None
    ) -> None:
        self._placement = placement
        self._route = route
        self._decision = decision
        self._dossier = dossier
        if placement.exact is not None and dossier is not None and dossier.tokens is not None:
            placement.exact.sent(decision.worker, dossier.tokens)
        self._attempt = dossier.attempts[-1] if dossier and dossier.attempts else Attempt(decision, (), now)
        self._started = now
        uncached = max(0, route.prompt_tokens - decision.cached_tokens)
        self._before = placement.leases.standing(decision.worker, now)
        self._lease = placement.leases.open(decision.worker, uncached, now)
        self._series = placement.metrics.worker(decision.worker)
        self._cached_known = False
        self._open_ms: float | None = None  # a time to first token that only the answer's end may explain
        self.outcome = "client_gone"  # unless somebody says otherwise before the end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle(self.outcome)

    def settle(self, outcome: str) -> None:
        """The attempt is over: release the lease and tell everybody how it went. Further calls change nothing."""
        if not self._lease.release():
            return
        if (series := self._series) is not None:
            series.outcome(outcome)
            if self._attempt.cached_tokens is not None:
                series.predicted.inc(self._predicted())
                series.actual.inc(self._attempt.cached_tokens)
        self._attempt.outcome = outcome
        if self._dossier is not None:
            if self._placement.exact is not None and self._dossier.tokens is not None:
                self._placement.exact.over(self._decision.worker, self._dossier.tokens)
            for watcher in self._placement.watchers:
                watcher.settled(self._dossier, self._route, self._attempt)

    def record(self, now: float) -> None:
        """Tell the policy that the worker will hold the prompt's prefix."""
        self._placement.policy.record(self._route, self._decision.worker, now)

    def patience(self, least: float) -> float | None:
        """Seconds after which a missing first token is odd: ``least`` and thrice what the learned speed says.

        None while nothing is known of the worker's speed.
        """
        speeds, worker = self._placement.speeds, self._decision.worker
        if not speeds.known(worker):
            return None
        ahead = self._before.prefill_tokens + self._lease.prefill_tokens
        return least + 3 * ahead * speeds.speed(worker).prefill_ms_per_token / 1000

    def first_token(self, now: float, cached: int | None, teach: bool) -> None:
        """The prompt is done. ``cached``: what the answer's head says; ``teach``: the time taken tells the speed."""
        placement, worker, predicted = self._placement, self._decision.worker, self._decision.cached_tokens
        felt = feel(self._lease, self._load_before(), placement.speeds, now) if teach and cached is None else None
        ttft_ms = self._lease.first_token(now)
        if cached is not None:
            self._told(cached, now)
        if not teach:
            return
        self._attempt.ttft_ms = ttft_ms
        if ttft_ms is None:
            return
        if felt is not None:
            placement.policy.felt(self._route, worker, *felt)
        denied = felt is not None and felt.denies(self._route.prompt_tokens, predicted)  # a slow worker or a cold one
        if cached is None and (denied or placement.speeds.better_at_end(worker, predicted)):
            self._open_ms = ttft_ms
        else:
            self._teach(predicted if cached is None else cached, ttft_ms, now)

    def finished(self, tail: Tail, now: float) -> None:
        """The whole answer was relayed: read from its end what its head did not tell.

        The end of a native batch's answer tells of its last prompt only, so that of batches nothing is read.
        """
        self._attempt.total_ms = (now - self._started) * 1000
        if self._dossier is not None and self._dossier.prompts > 1:
            return
        prompt, self._attempt.output_tokens, cached = tail.usage()
        self._attempt.prompt_tokens = prompt
        if prompt is not None:
            if self._dossier is None or self._dossier.form is not Form.IDS:  # those have four bytes a token, always
                self._placement.prompt_text.learn(self._route.model, len(self._route.text), prompt)
            if self._series is not None:
                self._series.prompt.value += prompt
        if cached is not None and not self._cached_known:
            self._told(cached, now)
        self._placement.speeds.ended(self._decision.worker, cached is not None)
        if self._open_ms is not None:
            self._teach(self._decision.cached_tokens if cached is None else cached, self._open_ms, now)

    def _teach(self, cached: int, ttft_ms: float, now: float) -> None:
        """So long took a prompt of which ``cached`` tokens were there."""
        if self._lease.stray:  # nobody would ever forget what it teaches
            return
        uncached = max(0, self._route.prompt_tokens - cached)
        self._placement.speeds.observe(self._lease.worker, uncached, self._load_before(), ttft_ms, now)

    def _load_before(self) -> WorkerLoad:
        """The worker's load when the request was sent."""
        return self._before.load(self._started, self._placement.leases.half_life_s)

    def _told(self, cached: int, now: float) -> None:
        """The worker said how much it had cached: compare with the prediction."""
        self._cached_known = True
        self._attempt.cached_tokens = cached
        self._placement.policy.observe(self._route, self._decision.worker, cached, now)

    def _predicted(self) -> int:
        """The predicted cached tokens in the worker's own tokens, once it told how many the prompt has.

        Before that a prompt's length is an estimate, and a hit on all of an overestimated prompt would be more tokens
        than it has. A prompt's last token is never cached.
        """
        predicted, prompt = self._decision.cached_tokens, self._attempt.prompt_tokens
        if not prompt or not self._route.prompt_tokens:
            return predicted
        return min(predicted * prompt // self._route.prompt_tokens, prompt - 1)
