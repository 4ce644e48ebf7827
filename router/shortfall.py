"""The closed loop's questions: who says what was cached, and why was it less than the whole prompt?"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from policies.policy import RouteRequest
from router.dossier import Attempt, Dossier
from router.tally import Counter

log = logging.getLogger(__name__)

BEST_CHOSEN = frozenset({"warm", "cold", "only"})  # decisions that passed over no longer prefix
PATIENCE = 20  # good answers of a worker without a word on its cache, before the log says so
ADVICE = (
    "worker %s has answered %d requests and never said how many prompt tokens it had cached, so placement cannot be "
    "checked against it. Start SGLang with --enable-cache-report, vLLM with --enable-prompt-tokens-details; "
    "for streams give this router --request-usage"
)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Prompt tokens that were computed although they were asked for, by cause."""

    workload: int  # no candidate was expected to hold them
    routing: int  # another candidate was: load sent the request elsewhere
    index: int  # the chosen worker was, and did not


def shortfall(attempt: Attempt, prompt_tokens: int, cached: int) -> Shortfall:
    """Split what was computed, ``prompt_tokens - cached``, by cause."""
    chosen = attempt.decision.cached_tokens
    best = chosen
    if attempt.decision.reason not in BEST_CHOSEN:
        best = max((score.cached_tokens for score in attempt.decision.scores), default=chosen)
    index = max(0, chosen - cached)
    routing = max(0, min(best, prompt_tokens) - max(chosen, cached))
    return Shortfall(max(0, prompt_tokens - cached - routing - index), routing, index)


class ClosedLoop:
    """A watcher that counts what answers say of the cache."""

    def __init__(self, registry: CollectorRegistry) -> None:
        missing = Counter(
            "warmlane_cache_shortfall_tokens_total",
            "Prompt tokens computed: nobody held them (workload), another did (routing), they were gone (index)",
            ["cause"],
            registry=registry,
        )
        self._answers = Counter(
            "warmlane_answers_total", "Good answers, by whether they told their cached tokens", ["told"],
            registry=registry,
        )  # fmt: skip
        self._workload, self._routing, self._index = map(missing.labels, ("workload", "routing", "index"))
        self._silent: dict[str, int] = {}  # good answers without a word, until the first that tells

    def chosen(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """Nothing yet."""

    def settled(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        if attempt.outcome != "ok" or not route.prompt_tokens:
            return
        told = attempt.cached_tokens is not None
        self._answers.count(("yes" if told else "no",))
        self._note(attempt.decision.worker, told)
        if attempt.cached_tokens is not None:
            prompt = attempt.prompt_tokens or route.prompt_tokens
            missing = shortfall(attempt, prompt, attempt.cached_tokens)
            self._workload.inc(missing.workload)
            self._routing.inc(missing.routing)
            self._index.inc(missing.index)

    def forget(self, url: str) -> None:
        """The worker is gone."""
        self._silent.pop(url, None)

    def _note(self, url: str, told: bool) -> None:
        if told:
            self._silent[url] = -1
        elif (count := self._silent.get(url, 0)) >= 0:
            self._silent[url] = count + 1
            if count + 1 == PATIENCE:
                log.warning(ADVICE, url, PATIENCE)
