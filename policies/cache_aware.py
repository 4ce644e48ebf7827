"""The default policy: the worker that will answer first, given what each one has cached and what it is busy with.

No threshold switches between cache and load. Both are milliseconds in one sum, so a hot prefix is copied to a second
worker exactly when waiting for the first costs more than computing the prefix again: the request's own wait plus what
later requests wait for that work, the latter the less the more often the prefix is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from policies.cost.fleet_view import Finder
from policies.cost.gate import BalanceGate
from policies.cost.pressure import Pressure
from policies.cost.reuse import PrefixReuse
from policies.cost.score import LazyScores, score
from policies.cost.traffic import Traffic
from policies.policy import Candidate, Decision, Policy, RouteRequest, Score
from policies.prefix.rendezvous import home_key, weight
from policies.prefix.restart import RestartDetector, Sent
from policies.prefix.text_tree import PrefixMatch, TextTree

BYTES_PER_TOKEN = 4.0  # when the request does not say how many tokens its text has
MIN_CREDIT_TOKENS = 16  # engines cache whole pages; less than the smallest common one saves nothing
NEAR_TIE = 0.05  # costs this close are within the error of the estimate
NEAR_TIE_MS = 1.0
EVEN = 1.0 + 1e-9  # of near ties those are taken that had at most so many times the average recent work
REUSE_DISCOUNT = 5.0  # measured: a second copy of a prefix asked for n times lately costs later ones 1 / (1 + 5n)
# A report this far below what the tree says is no rounding: pages, template tokens or an estimated prompt length
# explain up to a factor of 1.5 and 64 tokens.
TRIM_FACTOR = 1.5
TRIM_TOKENS = 64
USABLE = 0.95  # of a worker's cache; running answers have the rest
LEARN_BYTES = 0.02  # weight of one prompt in the bytes per token
SCANNED = 64  # candidates up to which all are weighed
HOLDERS, OTHERS = 16, 16  # weighed of a larger fleet: those with the longest prefixes, and others


class CacheAwarePolicy(Policy):
    """Least cost over an approximate prefix tree, or over exact knowledge where a candidate brings it.

    Reasons: ``only`` (one candidate), ``cold`` (no candidate has a usable prefix), ``warm`` (the longest prefix was
    chosen), ``spill`` (a longer prefix was passed over because its holder would answer later), ``balance`` (a balance
    flag was given and the gate was open).
    """

    name = "cache_aware"

    def __init__(self, tree: TextTree, rng: Random, threshold: float = 0.0, gate: BalanceGate | None = None) -> None:
        self._tree = tree
        self._rng = rng
        self._threshold = threshold
        self._gate = gate
        self._traffic = Traffic()
        self._reuse = PrefixReuse()
        self._pressure = Pressure()
        self._capacities: dict[str, int] = {}
        self._bytes_per_token = BYTES_PER_TOKEN
        self._restarts = RestartDetector()
        self._trims = 0
        self._restarted = 0

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        tokens = prompt_tokens(request)
        match = self._tree.walk(request.text, tree_key(request))
        workers = len(candidates)
        key = home_key(tree_key(request), request.text, match.shared) if request.text else 0
        if workers > SCANNED:
            candidates = self._sample(request, candidates, match)
        cached = self._credits(request, tokens, candidates, match)
        delayed = self._delayed_per_token(request, workers, candidates, match.longest, now)
        evicted = self._evicted(tokens, candidates, cached, now)
        scores = LazyScores(lambda: tuple(_scores(candidates, tokens, cached, delayed, evicted)))
        if self._gate is not None and (least := self._gate.least_loaded(candidates)) is not None:
            return Decision(candidates[least].worker, cached[least], "balance", scores)
        index = self._cheapest(key, candidates, cached, costs(candidates, tokens, cached, delayed, evicted))
        return Decision(candidates[index].worker, cached[index], reason(cached[index], cached), scores)

    def _credits(
        self, request: RouteRequest, tokens: int, candidates: Sequence[Candidate], match: PrefixMatch
    ) -> list[int]:
        """Cached tokens of each candidate: as known exactly, else as the tree says."""
        matched = match.all() if len(candidates) <= SCANNED else {c.worker: match.of(c.worker) for c in candidates}
        credit = {length: cached_tokens(request, tokens, length, self._threshold) for length in set(matched.values())}
        return [
            credit.get(matched.get(candidate.worker, 0), 0) if candidate.held is None else candidate.held
            for candidate in candidates
        ]

    def _delayed_per_token(
        self, request: RouteRequest, workers: int, candidates: Sequence[Candidate], longest: int, now: float
    ) -> float:
        speed = sum(1.0 / candidate.speed.prefill_ms_per_token for candidate in candidates)
        delayed = self._traffic.delayed_per_token(speed * workers / len(candidates))
        return delayed / (1.0 + REUSE_DISCOUNT * self._reuse.recent(request.text, longest, now))

    def _evicted(self, tokens: int, candidates: Sequence[Candidate], cached: Sequence[int], now: float) -> list[float]:
        """Tokens that each candidate will compute again because this prompt pushes them out of its cache."""
        evicted = [0.0] * len(candidates)
        if self._capacities:
            for index, candidate in enumerate(candidates):
                new = int((tokens - cached[index]) * self._bytes_per_token)
                lost, used = self._tree.pushed_out(candidate.worker, new)
                if lost:
                    evicted[index] = min(lost, new) / self._bytes_per_token * self._pressure.recomputed(now - used)
        return evicted

    def _cheapest(
        self, key: int, candidates: Sequence[Candidate], cached: Sequence[int], costs: Sequence[float]
    ) -> int:
        """The least cost; of near ties the longest prefix, and of those the prompt's home among the less worked ones.

        Recent work matters on an idle fleet: nothing is in flight there, and a speed that looks 2 % better by chance
        must not draw every new conversation. The home is the same for all replicas of the router.
        """
        limit = min(costs) * (1.0 + NEAR_TIE) + NEAR_TIE_MS
        near = [index for index, cost in enumerate(costs) if cost <= limit]
        if len(near) == 1:
            return near[0]
        longest = max(cached[index] for index in near)
        near = [index for index in near if cached[index] == longest]
        recent = [candidates[index].load.recent_tokens for index in near]
        most = EVEN * sum(recent) / len(recent)
        near = [index for index, work in zip(near, recent, strict=True) if work <= most]
        if len(near) == 1:
            return near[0]
        if not key:
            return self._rng.choice(near)
        return max(near, key=lambda index: weight(key, candidates[index].worker))

    def _sample(self, request: RouteRequest, candidates: Sequence[Candidate], match: PrefixMatch) -> list[Candidate]:
        """Of a large fleet the holders of the longest prefixes, and workers drawn at random."""
        finder = Finder(candidates)
        chosen = {index for worker in match.all(HOLDERS) if (index := finder.find(worker)) is not None}
        chosen.update(self._rng.sample(range(len(candidates)), OTHERS))
        return [candidates[index] for index in sorted(chosen)]

    def record(self, request: RouteRequest, worker: str, now: float) -> None:
        if not request.text:
            return
        key = tree_key(request)
        found = self._tree.insert(request.text, worker, key, now)
        tokens = prompt_tokens(request)
        new = tokens * (1.0 - found.held / len(request.text))
        self._pressure.add(None if found.continues is None else now - found.continues)
        if tokens:  # a prompt of a byte or two may count as none
            self._bytes_per_token += LEARN_BYTES * (len(request.text) / tokens - self._bytes_per_token)
        if worker in self._capacities:
            self._tree.limit(worker, int(self._capacities[worker] * self._bytes_per_token * USABLE))
        self._traffic.add(new, now)
        self._reuse.add(request.text, found.known, now)
        self._restarts.sent(worker, Sent(now, key, request.text, found.held))

    def observe(self, request: RouteRequest, worker: str, cached_tokens: int, now: float) -> None:
        """Trim what ``worker`` cannot have had when it reported far less than the tree holds.

        A prompt counts as proof of nothing while it may still have been waiting itself: only those sent at least as
        long before this request as this request took to answer are trimmed.
        """
        tokens = prompt_tokens(request)
        if not tokens:
            return
        key = tree_key(request)
        prompt = self._restarts.find(worker, key, request.text)
        if prompt is not None:
            kept = self._restarts.reported(worker, prompt, cached_tokens, tokens)
            if kept is not None:
                self._restart(worker, kept)
                return
        believable = (cached_tokens * TRIM_FACTOR + TRIM_TOKENS) / tokens
        sent = self._tree.touched(request.text, worker, key)
        if believable >= 1.0 or sent is None:
            return
        length = int(believable * len(request.text))
        self._trims += self._tree.trim(request.text, worker, length, key, before=sent - (now - sent))

    def _restart(self, worker: str, kept: Sequence[Sent]) -> None:
        """``worker`` has only what it was sent since it lost its cache."""
        self._restarted += 1
        self._tree.clear(worker)
        for prompt in kept:
            self._tree.insert(prompt.text, worker, prompt.key, prompt.at)

    def capacity(self, worker: str, kv_tokens: int) -> None:
        self._capacities[worker] = kv_tokens

    def forget(self, worker: str) -> None:
        self._tree.forget(worker)
        self._capacities.pop(worker, None)
        self._restarts.forget(worker)

    def stats(self) -> dict[str, float]:
        return {
            "prefix_tree_bytes": self._tree.used_bytes,
            "prefix_tree_budget_bytes": self._tree.budget_bytes,
            "prefix_tree_nodes": self._tree.nodes,
            "prefix_tree_trims": self._trims,
            "worker_restarts": self._restarted,
        }


def _scores(
    candidates: Sequence[Candidate], tokens: int, cached: Sequence[int], delayed: float, evicted: Sequence[float]
) -> Iterator[Score]:
    for candidate, known, lost in zip(candidates, cached, evicted, strict=True):
        yield score(candidate, tokens, known, delayed, lost)


def costs(
    candidates: Sequence[Candidate], tokens: int, cached: Sequence[int], delayed: float, evicted: Sequence[float]
) -> list[float]:
    """``score(...).total_ms`` of each candidate, a few times faster; a test holds the two together."""
    totals = []
    for (_, load, (ms, decode_ms), _), known, lost in zip(candidates, cached, evicted, strict=True):
        _, waiting, decodes, _, head_tokens, head_ms, others, other_decodes = load
        done = head_ms / ms
        queue_ms = (waiting + others - (done if done < head_tokens else head_tokens)) * ms
        own_ms = (tokens - known) * ms
        later = (tokens - known) * delayed * (queue_ms + own_ms)
        totals.append(queue_ms + own_ms + (decodes + other_decodes) * decode_ms + later + lost * ms)
    return totals


def tree_key(request: RouteRequest) -> str:
    """Prefixes are shared within one model and one namespace of it."""
    return f"{request.model}\0{request.namespace}"


def prompt_tokens(request: RouteRequest) -> int:
    return request.prompt_tokens or round(len(request.text) / BYTES_PER_TOKEN)


def cached_tokens(request: RouteRequest, tokens: int, matched_bytes: int, threshold: float = 0.0) -> int:
    """The matched bytes in tokens. The last token of a prompt is never cached: its logits are needed."""
    if not matched_bytes or matched_bytes < threshold * len(request.text):
        return 0
    credit = min(tokens * matched_bytes // len(request.text), tokens - 1)
    return credit if credit >= MIN_CREDIT_TOKENS else 0


def reason(chosen: int, cached: Sequence[int]) -> str:
    if len(cached) == 1:
        return "only"
    longest = max(cached)
    if not longest:
        return "cold"
    return "warm" if chosen == longest else "spill"
