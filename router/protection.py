"""What protects the fleet from its own faults, as the data path uses it."""

from __future__ import annotations

from dataclasses import dataclass

from router.guards import Guards
from router.retry_budget import RetryBudget
from router.silence import Silence


@dataclass(frozen=True, slots=True)
class Protection:
    """Breakers and rests, the retry budget, and the watch for silent workers."""

    guards: Guards
    budget: RetryBudget
    silence: Silence

    def worker_came(self, url: str) -> None:
        self.guards.add(url)

    def worker_went(self, url: str) -> None:
        self.guards.remove(url)
        self.silence.forget(url)
