"""The default policy: the worker that will answer first, given what each one has cached and what it is busy with.

No threshold switches between cache and load. Both are milliseconds in one sum, so a hot prefix is copied to a second
worker exactly when waiting for the first costs more than computing the prefix again.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from policies.cost.score import score
from policies.policy import Candidate, Decision, Policy, RouteRequest, Score
from policies.prefix.text_tree import TextTree

BYTES_PER_TOKEN = 4.0  # when the request does not say how many tokens its text has
MIN_CREDIT_TOKENS = 16  # engines cache whole pages; less than the smallest common one saves nothing
NEAR_TIE = 0.05  # costs this close are within the error of the estimate
NEAR_TIE_MS = 1.0
# A report this far below what the tree says is no rounding: pages, template tokens or an estimated prompt length
# explain up to a factor of 1.5 and 64 tokens.
TRIM_FACTOR = 1.5
TRIM_TOKENS = 64


class CacheAwarePolicy(Policy):
    """Least expected time to first token over an approximate prefix tree.

    Reasons: ``only`` (one candidate), ``cold`` (no candidate has a usable prefix), ``warm`` (the longest prefix was
    chosen), ``spill`` (a longer prefix was passed over because its holder would answer later).
    """

    name = "cache_aware"

    def __init__(self, tree: TextTree, rng: Random) -> None:
        self._tree = tree
        self._rng = rng
        self._trims = 0

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        tokens = prompt_tokens(request)
        matched = self._tree.match(request.text, tree_key(request))
        scores = tuple(
            score(candidate, tokens, cached_tokens(request, tokens, matched.get(candidate.worker, 0)))
            for candidate in candidates
        )
        index = self._cheapest(candidates, scores)
        chosen = scores[index]
        return Decision(chosen.worker, chosen.cached_tokens, reason(chosen, scores), scores)

    def _cheapest(self, candidates: Sequence[Candidate], scores: Sequence[Score]) -> int:
        """The least cost; of near ties the longest prefix, then the least recent work, then a random one.

        Recent work matters on an idle fleet: nothing is in flight there, and a speed that looks 2 % better by chance
        must not draw every new conversation.
        """
        costs = [entry.total_ms for entry in scores]
        limit = min(costs) * (1.0 + NEAR_TIE) + NEAR_TIE_MS
        near = [index for index, cost in enumerate(costs) if cost <= limit]
        if len(near) == 1:
            return near[0]
        ranks = [(-scores[index].cached_tokens, candidates[index].load.recent_tokens) for index in near]
        best = min(ranks)
        return self._rng.choice([index for index, rank in zip(near, ranks, strict=True) if rank == best])

    def record(self, request: RouteRequest, worker: str, now: float) -> None:
        self._tree.insert(request.text, worker, tree_key(request), now)

    def observe(self, request: RouteRequest, worker: str, cached_tokens: int, now: float) -> None:
        """Trim what ``worker`` cannot have had when it reported far less than the tree holds.

        A prompt counts as proof of nothing while it may still have been waiting itself: only those sent at least as
        long before this request as this request took to answer are trimmed.
        """
        tokens = prompt_tokens(request)
        if not tokens:
            return
        believable = (cached_tokens * TRIM_FACTOR + TRIM_TOKENS) / tokens
        key = tree_key(request)
        sent = self._tree.touched(request.text, worker, key)
        if believable >= 1.0 or sent is None:
            return
        length = int(believable * len(request.text))
        self._trims += self._tree.trim(request.text, worker, length, key, before=sent - (now - sent))

    def forget(self, worker: str) -> None:
        self._tree.forget(worker)

    def stats(self) -> dict[str, float]:
        return {
            "prefix_tree_bytes": self._tree.used_bytes,
            "prefix_tree_budget_bytes": self._tree.budget_bytes,
            "prefix_tree_nodes": self._tree.nodes,
            "prefix_tree_trims": self._trims,
        }


def tree_key(request: RouteRequest) -> str:
    """Prefixes are shared within one model and one namespace of it."""
    return f"{request.model}\0{request.namespace}"


def prompt_tokens(request: RouteRequest) -> int:
    return request.prompt_tokens or round(len(request.text) / BYTES_PER_TOKEN)


def cached_tokens(request: RouteRequest, tokens: int, matched_bytes: int) -> int:
    """The matched bytes in tokens. The last token of a prompt is never cached: its logits are needed."""
    if not matched_bytes:
        return 0
    credit = min(tokens * matched_bytes // len(request.text), tokens - 1)
    return credit if credit >= MIN_CREDIT_TOKENS else 0


def reason(chosen: Score, scores: Sequence[Score]) -> str:
    if len(scores) == 1:
        return "only"
    longest = max(entry.cached_tokens for entry in scores)
    if not longest:
        return "cold"
    return "warm" if chosen.cached_tokens == longest else "spill"
