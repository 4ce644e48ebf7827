"""The default policy: the worker that will answer first, given what each one has cached and what it is busy with.

No threshold switches between cache and load. Both are milliseconds in one sum, so a hot prefix is copied to a second
worker exactly when waiting for the first costs more than computing the prefix again: the request's own wait plus what
later requests wait for that work, the latter the less the more often the prefix is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from policies.cost.felt import Felt
from policies.cost.fleet_view import SCANNED, FleetView, Listed, view_of
from policies.cost.gate import BalanceGate
from policies.cost.pressure import Pressure
from policies.cost.reuse import PrefixReuse
from policies.cost.score import LazyScores, score
from policies.cost.traffic import Traffic
from policies.policy import Candidate, Decision, Policy, RouteRequest, Score
from policies.prefix.rendezvous import home_key, weight
from policies.prefix.restart import RestartDetector, Sent
from policies.prefix.text_tree import Holder, PrefixMatch, TextTree

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
HOLDERS, OTHERS = 16, 16  # weighed of a large fleet: those with the longest prefixes, and others


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
        self._cast: tuple[Sequence[str], int, tuple[list[Holder], list[int]]] | None = None
        self._bytes_per_token = BYTES_PER_TOKEN
        self._restarts = RestartDetector()
        self._trims = 0
        self._restarted = 0

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        tokens = prompt_tokens(request)
        match = self._tree.walk(request.text, tree_key(request))
        view, share = view_of(candidates), 1.0
        if (size := len(view)) > SCANNED:
            view = self._sample(view, match)
            share = size / len(view)
        holders, bits = self._holders_of(view.workers)
        cached = self._credits(request, tokens, view, bits, match)
        delayed = self._delayed_per_token(request, share, view, match.longest, now)
        totals = view.costs(tokens, cached, delayed)
        evicted = self._evicted(tokens, holders, cached, now) if self._capacities else {}
        for index, lost in evicted.items():
            totals[index] += lost * view.speed(index).prefill_ms_per_token
        scores = LazyScores(_scores, view, tokens, cached, delayed, evicted)
        if self._gate is not None and (least := self._gate.least_loaded(list(view))) is not None:
            return Decision(view.workers[least], cached[least], "balance", scores)
        index = self._cheapest(request, match, view, cached, totals)
        return Decision(view.workers[index], cached[index], reason(cached[index], cached), scores)

    def _holders_of(self, workers: Sequence[str]) -> tuple[list[Holder], list[int]]:
        """The tree's holders and their bits, kept while the fleet and its holders stay the same."""
        changes = self._tree.holder_changes
        if self._cast is None or self._cast[0] is not workers or self._cast[1] != changes:
            holders = self._tree.holders(workers)
            self._cast = workers, changes, (holders, [holder.bit for holder in holders])
        return self._cast[2]

    def _credits(
        self,
        request: RouteRequest,
        tokens: int,
        view: FleetView | Listed,
        bits: Sequence[int],
        match: PrefixMatch,
    ) -> list[int]:
        """Cached tokens of each candidate: as known exactly, else as the tree says."""
        if cached_tokens(request, tokens, match.longest, self._threshold):
            steps = [(mask, cached_tokens(request, tokens, length, self._threshold)) for mask, length in match.steps()]
            guessed = credits(steps, bits)
        else:
            guessed = [0] * len(bits)
        if self._restarts.doubted:
            self._doubt(request, tokens, view.workers, guessed)
        held = view.held()
        if held is None:
            return guessed
        least = self._threshold * tokens
        pairs = zip(guessed, held, strict=True)
        return [guess if known is None else known if known >= least else 0 for guess, known in pairs]

    def _doubt(self, request: RouteRequest, tokens: int, workers: Sequence[str], guessed: list[int]) -> None:
        """Workers that may have lost their caches are credited with what they were sent since."""
        for index, worker in enumerate(workers):
            if guessed[index] and worker in self._restarts.doubted:
                length = self._restarts.credit(worker, tree_key(request), request.text)
                guessed[index] = min(guessed[index], cached_tokens(request, tokens, length, self._threshold))

    def _delayed_per_token(
        self, request: RouteRequest, share: float, view: FleetView | Listed, longest: int, now: float
    ) -> list[float]:
        """Of each worker. ``share``: how many times as large as ``view`` the fleet is."""
        mean = self._traffic.delayed_per_token(view.tokens_per_ms() * share)
        discounted = mean / (1.0 + REUSE_DISCOUNT * self._reuse.recent(request.text, longest, now))
        return self._traffic.spread(discounted, view.workers)

    def _evicted(self, tokens: int, holders: Sequence[Holder], cached: Sequence[int], now: float) -> dict[int, float]:
        """Tokens that candidates will compute again because this prompt pushes them out of their caches."""
        whole = int(tokens * self._bytes_per_token)
        evicted = {}
        for index in [index for index, holder in enumerate(holders) if holder.size + whole > holder.limit]:
            new = int((tokens - cached[index]) * self._bytes_per_token)
            lost, used = holders[index].pushed_out(new)
            if lost:
                evicted[index] = min(lost, new) / self._bytes_per_token * self._pressure.recomputed(now - used)
        return evicted

    def _cheapest(
        self,
        request: RouteRequest,
        match: PrefixMatch,
        view: FleetView | Listed,
        cached: list[int],
        totals: list[float],
    ) -> int:
        """The least cost; of near ties the longest prefix, and of those the prompt's home among the less worked ones.

        Recent work matters on an idle fleet: nothing is in flight there, and a speed that looks 2 % better by chance
        must not draw every new conversation. The home is the same for all replicas of the router.
        """
        limit = min(totals) * (1.0 + NEAR_TIE) + NEAR_TIE_MS
        near = [index for index, cost in enumerate(totals) if cost <= limit]
        if len(near) == 1:
            return near[0]
        longest = max([cached[index] for index in near])
        near = [index for index in near if cached[index] == longest]
        recent = view.recent(near)
        most = EVEN * sum(recent) / len(recent)
        near = [index for index, work in zip(near, recent) if work <= most]  # noqa: B905 - costs half of it compiled
        if len(near) == 1:
            return near[0]
        if not request.text:
            return self._rng.choice(near)
        key = home_key(tree_key(request), request.text, match.shared)
        return max(near, key=lambda index: weight(key, view.workers[index]))

    def _sample(self, view: FleetView | Listed, match: PrefixMatch) -> FleetView | Listed:
        """Of a large fleet the holders of the longest prefixes, and workers drawn at random."""
        holders = [*match.all(HOLDERS), *view.holders[:HOLDERS]]
        chosen = {index for worker in holders if (index := view.find(worker)) is not None}
        chosen.update(self._rng.sample(range(len(view)), OTHERS))
        return view.pick(sorted(chosen))

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
        self._traffic.add(worker, new, now)
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

    def felt(self, request: RouteRequest, worker: str, computed_tokens: float, alone: bool) -> None:
        tokens = prompt_tokens(request)
        prompt = self._restarts.find(worker, tree_key(request), request.text) if tokens else None
        if prompt is not None:
            kept = self._restarts.felt(worker, prompt, Felt(computed_tokens, alone), tokens)
            if kept is not None:
                self._restart(worker, kept)

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
        self._traffic.forget(worker)

    def stats(self) -> dict[str, float]:
        return {
            "prefix_tree_bytes": self._tree.used_bytes,
            "prefix_tree_budget_bytes": self._tree.budget_bytes,
            "prefix_tree_nodes": self._tree.nodes,
            "prefix_tree_trims": self._trims,
            "worker_restarts": self._restarted,
        }


def _scores(
    view: FleetView | Listed, tokens: int, cached: Sequence[int], delayed: Sequence[float], evicted: Mapping[int, float]
) -> tuple[Score, ...]:
    rows = enumerate(zip(view.workers, view.waits(), cached, delayed, strict=True))
    return tuple(
        score(worker, wait, tokens, known, later, evicted.get(index, 0.0))
        for index, (worker, wait, known, later) in rows
    )


def credits(steps: Sequence[tuple[int, int]], bits: Sequence[int]) -> list[int]:
    """What each bit gets: the credit of the first step whose mask has it; ``steps``: (mask, credit)."""
    if len(steps) == 1:
        ((mask, credit),) = steps
        return [credit if mask & bit else 0 for bit in bits]
    found = []
    for bit in bits:
        for mask, credit in steps:
            if mask & bit:
                found.append(credit)
                break
        else:
            found.append(0)
    return found


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
