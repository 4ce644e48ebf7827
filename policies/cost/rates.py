"""Prefill speed of each worker, learned from the times to first token that it showed.

One number a worker: milliseconds per prompt token, the least-squares line through the origin of work against time to
first token, with exponential forgetting. Work is own uncached tokens, tokens ahead, and running decodes at the price of
so many prompt tokens as the default speed says: that ratio holds far better from machine to machine than any time does.
Through the origin, long prompts weigh most, which are the ones that placement is about; the fixed part of a request is
the same wherever it goes.
"""

from __future__ import annotations

from statistics import median

from policies.policy import WorkerLoad, WorkerSpeed

FORGET = 0.95  # weight kept by the past at each observation: the last 20 or so count
MIN_TOKENS = 32  # below this the fixed part of a request hides its prefill
TRUSTED = 3  # observations before a worker's own line replaces the fleet's
OUTLIER = 8.0  # one observation counts as at most so many times the expected time, and at least its inverse
SLOWEST, FASTEST = 1000.0, 1e-4  # ms per token, whatever is observed


class _Line:
    """Recursive least squares of y = slope * x."""

    __slots__ = ("count", "xx", "xy")

    def __init__(self) -> None:
        self.count = 0
        self.xx = 0.0
        self.xy = 0.0

    @property
    def slope(self) -> float:
        return min(max(self.xy / self.xx, FASTEST), SLOWEST)

    def add(self, x: float, y: float) -> None:
        if self.count >= TRUSTED:
            expected = self.slope * x
            y = min(max(y, expected / OUTLIER), expected * OUTLIER)
        self.count += 1
        self.xx = FORGET * self.xx + x * x
        self.xy = FORGET * self.xy + x * y


class RateBook:
    """The speeds of all workers."""

    def __init__(self, default: WorkerSpeed | None = None) -> None:
        self._default = default or WorkerSpeed()
        self._decode_tokens = self._default.decode_ms_per_step / self._default.prefill_ms_per_token
        self._lines: dict[str, _Line] = {}

    def observe(self, worker: str, uncached_tokens: int, load: WorkerLoad, ttft_ms: float) -> None:
        """``worker`` answered after ``ttft_ms``; ``load`` is what it had in flight when this prompt was sent."""
        tokens = uncached_tokens + load.waiting_tokens(self.speed(worker).prefill_ms_per_token)
        if tokens >= MIN_TOKENS and ttft_ms > 0:
            self._lines.setdefault(worker, _Line()).add(tokens + load.decodes * self._decode_tokens, ttft_ms)

    def speed(self, worker: str) -> WorkerSpeed:
        """What ``worker`` showed; before it has shown enough the fleet's median, and before that the default."""
        line = self._lines.get(worker)
        if line is not None and line.count >= TRUSTED:
            return self._with(line.slope)
        known = [line.slope for line in self._lines.values() if line.count >= TRUSTED]
        return self._with(median(known)) if known else self._default

    def known(self, worker: str) -> bool:
        """Has ``worker`` shown enough to be judged by its own speed?"""
        line = self._lines.get(worker)
        return line is not None and line.count >= TRUSTED

    def forget(self, worker: str) -> None:
        self._lines.pop(worker, None)

    def _with(self, prefill_ms_per_token: float) -> WorkerSpeed:
        return WorkerSpeed(prefill_ms_per_token, prefill_ms_per_token * self._decode_tokens)
