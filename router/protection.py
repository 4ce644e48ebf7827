"""What protects the fleet from its own faults, as the data path uses it."""

from __future__ import annotations

from dataclasses import dataclass

from router.admission import Admission
from router.guards import Guards
from router.retry_budget import RetryBudget
from router.silence import Silence


@dataclass(frozen=True, slots=True)
class Protection:
    """Who is let in, breakers and rests, the retry budget, and the watch for silent workers."""

    admission: Admission
    guards: Guards
    budget: RetryBudget
    silence: Silence

    def worker_came(self, url: str) -> None:
        self.guards.add(url)

    def worker_went(self, url: str) -> None:
        self.guards.remove(url)
        self.silence.forget(url)
