"""How long an operation of the cache takes, for the metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Spent:
    """Running totals of one operation."""

    times: int = 0
    seconds: float = 0.0

    def count(self, started: float) -> None:
        """It was done once more, since ``time.perf_counter()`` said ``started``."""
        self.times += 1
        self.seconds += time.perf_counter() - started
