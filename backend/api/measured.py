"""The speed that this server showed: a router that comes anew takes it as the first guess.

Steps are told apart by what they did. One of many prompt tokens shows the time of a prompt token; one without any, that
of a decode step. Sums are decayed, so that the last few hundred steps count.
"""

from __future__ import annotations

from backend.messages import SchedulerStats

KEPT = 0.99  # weight of the past at each step of a kind
LONG_TOKENS = 128  # prompt tokens from which on a step's time is that of its prompts
MOSTLY = 8  # and so many times more than tokens generated in it


class _Mean:
    """Time for each unit of work, of the steps of one kind."""

    def __init__(self) -> None:
        self.seconds = self.work = 0.0

    def add(self, seconds: float, work: float) -> None:
        self.seconds = KEPT * self.seconds + seconds
        self.work = KEPT * self.work + work

    @property
    def ms(self) -> float | None:
        """Milliseconds for one; None before any step."""
        return 1000.0 * self.seconds / self.work if self.work else None


class MeasuredSpeed:
    """Fed with the scheduler's running totals."""

    def __init__(self) -> None:
        self._prefill, self._decode = _Mean(), _Mean()
        self._last: tuple[int, int, float] | None = None

    def record(self, stats: SchedulerStats) -> None:
        """The totals after a step; the first ones, and those of a scheduler that started anew, are where it begins."""
        totals = stats.prefill_tokens_total, stats.decode_tokens_total, stats.step_seconds_total
        last, self._last = self._last or totals, totals
        prompts, decoded, seconds = (new - old for new, old in zip(totals, last, strict=True))
        if seconds <= 0 or prompts < 0:
            return
        if prompts >= max(LONG_TOKENS, MOSTLY * decoded):
            self._prefill.add(seconds, prompts)
        elif not prompts and decoded:
            self._decode.add(seconds, 1.0)

    def as_json(self) -> dict[str, float | None]:
        """For ``/server_info``; null for what was not measured yet."""
        return {"prefill_ms_per_token": self._prefill.ms, "decode_ms_per_step": self._decode.ms}
