"""What is kept of one request beside its route, and who is told what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policies.policy import Candidate, Decision, RouteRequest
from router.body import Form
from router.tokenise import Tokens


@dataclass(slots=True)
class Dossier:
    """One request. ``tokens`` is there when exact prefixes can be asked for."""

    request_id: str = ""
    form: Form = Form.OTHER
    prompts: int = 1
    tokens: Tokens | None = None
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True)
class Attempt:
    """One decision and how it went; times in ms, None where nobody said."""

    decision: Decision
    candidates: Sequence[Candidate]
    at: float  # in the router's clock, seconds
    outcome: str = "under way"
    cached_tokens: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None


class Watcher(Protocol):
    """Is told of every attempt. Must not raise, and must be quick."""

    def chosen(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """A decision was made; nothing has been sent."""

    def settled(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """The attempt is over."""
