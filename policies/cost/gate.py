"""The balance gate that users of SGLang's router know: above both thresholds load alone decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policies.policy import Candidate

DEFAULT_ABS, DEFAULT_REL = 64, 1.5


@dataclass(frozen=True, slots=True)
class BalanceGate:
    """Open when ``max - min > abs_threshold`` and ``max > rel_threshold * min``, in requests in flight."""

    abs_threshold: int = DEFAULT_ABS
    rel_threshold: float = DEFAULT_REL

    @classmethod
    def given(cls, abs_threshold: int | None, rel_threshold: float | None) -> BalanceGate | None:
        """A gate if either flag was given, with the other one at its default."""
        if abs_threshold is None and rel_threshold is None:
            return None
        return cls(
            DEFAULT_ABS if abs_threshold is None else abs_threshold,
            DEFAULT_REL if rel_threshold is None else rel_threshold,
        )

    def least_loaded(self, candidates: Sequence[Candidate]) -> int | None:
        """The index of the least loaded candidate when the gate is open."""
        loads = [candidate.load.requests for candidate in candidates]
        low, high = min(loads), max(loads)
        if high - low > self.abs_threshold and high > self.rel_threshold * low:
            return loads.index(low)
        return None
