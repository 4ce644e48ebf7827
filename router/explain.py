"""Why a request went where it went: a ring of the last decisions, and one header on demand."""

from __future__ import annotations

from typing import Any

from policies.policy import Candidate, Decision, RouteRequest
from router.dossier import Attempt, Dossier

ASK_HEADER = "x-warmlane-explain"
DECISION_HEADER = "x-warmlane-decision"
KEPT_REQUESTS = 1024
SHOWN_CANDIDATES = 64
MAX_ID = 256  # characters of a request id that a client made up


class ExplainRing:
    """A watcher that keeps the last requests by id: lengths and numbers, never texts. Nothing is written out before it
    is asked for.
    """

    def __init__(self, size: int = KEPT_REQUESTS) -> None:
        self._entries: list[_Entry | None] = [None] * size
        self._kept = 0

    def __len__(self) -> int:
        return min(self._kept, len(self._entries))

    def chosen(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """A request with the id of an earlier one hides it."""
        if len(dossier.attempts) == 1:
            self._entries[self._kept % len(self._entries)] = _Entry(dossier, route)
            self._kept += 1

    def settled(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """The entry refers to the attempts, which say how they ended."""

    def find(self, request_id: str) -> dict[str, Any] | None:
        """What is known of a request; None when it is not among the last ones."""
        name, size = request_id[:MAX_ID], len(self._entries)
        for back in range(1, len(self) + 1):  # the last one first
            entry = self._entries[(self._kept - back) % size]
            if entry is not None and entry.request_id == name:
                return entry.json()
        return None


class _Entry:
    __slots__ = ("attempts", "exact_tokens", "model", "named", "prompt_bytes", "prompt_tokens", "request_id", "sticky")

    def __init__(self, dossier: Dossier, route: RouteRequest) -> None:
        self.request_id = dossier.request_id[:MAX_ID]
        self.model = route.model
        self.prompt_tokens = route.prompt_tokens
        self.exact_tokens = dossier.tokens is not None
        self.prompt_bytes = len(route.text)
        self.named = bool(route.namespace)
        self.sticky = bool(route.routing_key)
        self.attempts = dossier.attempts

    def json(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "model": self.model,
            "prompt_tokens": self.prompt_tokens,
            "exact_tokens": self.exact_tokens,
            "prompt_bytes": self.prompt_bytes,
            "has_namespace": self.named,
            "has_routing_key": self.sticky,
            "attempts": [attempt_json(attempt) for attempt in self.attempts],
        }


def explanation(dossier: Dossier, route: RouteRequest) -> dict[str, Any]:
    """JSON of a request and its attempts, without a word of its text."""
    return _Entry(dossier, route).json()


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        **decision_json(attempt.decision, attempt.candidates),
        "outcome": attempt.outcome,
        "actual": {
            "cached_tokens": attempt.cached_tokens,
            "prompt_tokens": attempt.prompt_tokens,
            "output_tokens": attempt.output_tokens,
            "ttft_ms": _rounded(attempt.ttft_ms),
            "total_ms": _rounded(attempt.total_ms),
        },
    }


def decision_json(decision: Decision, candidates: Any = ()) -> dict[str, Any]:
    """A decision with the cost terms of the candidates that were weighed, cheapest first."""
    by_url: dict[str, Candidate] = {candidate.worker: candidate for candidate in candidates}
    scores = sorted(decision.scores, key=lambda score: score.total_ms)
    rows = [{**_numbers(score._asdict()), "total_ms": _rounded(score.total_ms)} for score in scores[:SHOWN_CANDIDATES]]
    for row in rows:
        if (candidate := by_url.get(row["worker"])) is not None:
            row["load"] = _numbers(candidate.load._asdict())
            row["prefill_ms_per_token"] = _rounded(candidate.speed.prefill_ms_per_token)
            row["exact"] = candidate.held is not None
    return {
        "worker": decision.worker,
        "reason": decision.reason,
        "predicted_cached_tokens": decision.cached_tokens,
        "candidates_total": len(candidates) or len(scores),
        "candidates": rows,
    }


def header_line(dossier: Dossier, worker_id: str) -> bytes:
    """:data:`DECISION_HEADER`, ready to be sent."""
    return f"{DECISION_HEADER}: {header_value(dossier, worker_id)}\r\n".encode("latin-1", "replace")


def header_value(dossier: Dossier, worker_id: str) -> str:
    """The last decision in one line. It names the worker by id: a client may see it."""
    attempt = dossier.attempts[-1]
    decision = attempt.decision
    score = next((score for score in decision.scores if score.worker == decision.worker), None)
    parts = [
        f"worker={worker_id}",
        f"reason={decision.reason or 'none'}",
        f"cached_tokens={decision.cached_tokens}",
        f"attempt={len(dossier.attempts)}",
        f"candidates={len(attempt.candidates)}",
    ]
    if score is not None:
        parts += [f"{name}={value:.1f}" for name, value in score._asdict().items() if name.endswith("_ms")]
    return "; ".join(parts)


def _numbers(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in fields.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
