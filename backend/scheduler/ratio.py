"""How much room a running request is expected to need: the share of its remaining output that admission reserves."""

from __future__ import annotations

from dataclasses import dataclass, field

INITIAL = 0.7
FLOOR = 0.14  # of the initial ratio
DECAY_STEPS = 600
RESERVED_OUTPUT_MAX = 4096  # tokens; longer outputs are not reserved beyond
RETRACT_LOOKAHEAD = 20  # tokens that every row should be able to grow after a retraction


@dataclass(slots=True)
class NewTokenRatio:
    """Expected share of ``max_new_tokens`` that requests really use.

    Reserving all of it wastes room, reserving none causes retractions: start high, decay while all goes well, jump up
    to what was really needed after a retraction (SGLang's scheme).
    """

    conservativeness: float = 1.0
    value: float = field(init=False)
    _low: float = field(init=False)
    _per_step: float = field(init=False)

    def __post_init__(self) -> None:
        self.value = min(INITIAL * self.conservativeness, 1.0)
        self._low = self.value * FLOOR
        self._per_step = (self.value - self._low) / DECAY_STEPS

    def decay(self) -> None:
        """One step went well."""
        self.value = max(self._low, self.value - self._per_step)

    def raise_after_retraction(self, decoded: int, max_new: int, rows: int) -> None:
        """``rows`` left running have decoded ``decoded`` of at most ``max_new`` tokens."""
        self.value = min(1.0, (decoded + RETRACT_LOOKAHEAD * rows) / (max_new + 1))
