"""What became of the grammars that clients sent: plain numbers, for the metrics."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

KEPT_TIMES = 65_536  # that nobody has read yet


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of trying a grammar: ``error`` is empty for a good one."""

    error: str = ""
    timed_out: bool = False
    seconds: float = 0.0  # that trying it took


@dataclass(slots=True)
class GrammarFigures:
    """Counters since the start. A grammar of several answers to one request counts once."""

    total: int = 0
    known: int = 0  # tried before
    refused: int = 0  # but for those that timed out
    timed_out: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))  # of each that was not known

    def count(self, verdict: Verdict, *, known: bool) -> None:
        """One more was asked for."""
        self.total += 1
        self.known += known
        self.timed_out += verdict.timed_out
        self.refused += bool(verdict.error) and not verdict.timed_out
        if not known:
            self.seconds.append(verdict.seconds)
