"""Prefill speed of each worker, learned from the times to first token that it showed.

A line a worker: fixed milliseconds plus milliseconds per prompt token, fitted with exponential forgetting to the work
and the times observed. Work is own uncached tokens, tokens ahead, and running decodes at the price of so many prompt
tokens as the default speed says: that ratio holds far better from machine to machine than any time does. The fixed part
(waiting for the step under way, the network) is fitted so that short prompts do not make a fast worker look slow; it is
not part of the speed. Where all prompts are alike the two cannot be told apart, and the line goes through the origin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from policies.cost.leases import Standing
from policies.policy import WorkerLoad, WorkerSpeed

FORGET = 0.97  # weight kept by the past at each observation: the last 33 or so count
SPREAD_TOKENS = 500.0  # times vary in proportion to the work, with this much on top
PRIOR = 0.02  # weight of the line through the origin against the observations
MIN_TOKENS = 32  # below this the fixed part of a request hides its prefill
TRUSTED = 3  # observations before a worker's own line replaces the fleet's
OUTLIER = 8.0  # one observation counts as at most so many times the expected time, and at least its inverse
SLOWEST, FASTEST = 1000.0, 1e-4  # ms per token, whatever is observed
CHANGED = 2.0  # a worker so many times faster than it was is another one
CHANCE_S = 2.0  # without an observation, after which an idle worker counts as the fastest, once
CHANCE_GROWTH, LONGEST_CHANCE_S = 1.5, 30.0  # of that time, for each chance that showed nothing new


class Line:
    """Recursive weighted least squares of ``y = fixed + slope * x``, both at least 0.

    ``speed``: None before enough was seen. ``chance_at``: when, without an observation, it may have changed.
    """

    __slots__ = ("chance_at", "chance_s", "count", "slope", "speed", "w", "wx", "wxx", "wxy", "wy")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.count = 0
        self.chance_at = math.inf
        self.chance_s = CHANCE_S
        self.slope = 0.0
        self.speed: WorkerSpeed | None = None
        self.w = self.wx = self.wy = self.wxx = self.wxy = 0.0

    def add(self, x: float, y: float) -> None:
        if self.count >= TRUSTED:
            expected = self.expected(x)
            y = min(max(y, expected / OUTLIER), expected * OUTLIER)
        self.count += 1
        weight = 1.0 / (x + SPREAD_TOKENS)
        self.w = FORGET * self.w + weight
        self.wx = FORGET * self.wx + weight * x
        self.wy = FORGET * self.wy + weight * y
        self.wxx = FORGET * self.wxx + weight * x * x
        self.wxy = FORGET * self.wxy + weight * x * y
        self.slope = min(max(self._fit(), FASTEST), SLOWEST)

    def expected(self, x: float) -> float:
        """The time that work ``x`` should take."""
        return max(0.0, (self.wy - self.slope * self.wx) / self.w) + self.slope * x

    def _fit(self) -> float:
        origin = self.wxy / self.wxx
        prior = PRIOR * self.wxx
        variance = self.wxx - self.wx * self.wx / self.w
        covariance = self.wxy - self.wx * self.wy / self.w
        return min((covariance + prior * origin) / (variance + prior), origin)


class RateBook:
    """The speeds of all workers."""

    def __init__(self, default: WorkerSpeed | None = None) -> None:
        self._default = default or WorkerSpeed()
        self._decode_tokens = self._default.decode_ms_per_step / self._default.prefill_ms_per_token
        self.forgotten = 0  # how often a worker was: whoever keeps lines asks for new ones then
        self._lines: dict[str, Line] = {}
        self._usual: WorkerSpeed | None = None  # kept until the next observation
        self._fastest: WorkerSpeed | None = None

    def observe(
        self, worker: str, uncached_tokens: int, load: WorkerLoad, ttft_ms: float, now: float = math.inf
    ) -> None:
        """``worker`` answered ``now`` after ``ttft_ms``; ``load`` is what it had in flight when the prompt was sent."""
        tokens = uncached_tokens + load.waiting_tokens(self.speed(worker).prefill_ms_per_token)
        if tokens >= MIN_TOKENS and ttft_ms > 0:
            work = tokens + load.running * self._decode_tokens
            line = self.line(worker)
            if line.chance_at <= now < math.inf:
                if ttft_ms * CHANGED < line.expected(work):
                    line.clear()  # what it was like tells nothing
                else:
                    line.chance_s = min(line.chance_s * CHANCE_GROWTH, LONGEST_CHANCE_S)
            line.add(work, ttft_ms)
            if line.count >= TRUSTED:
                line.chance_at = now + line.chance_s
                line.speed = self._with(line.slope)
            self._usual = self._fastest = None

    def speed(self, worker: str, idle_at: float | None = None) -> WorkerSpeed:
        """What ``worker`` showed; before it has shown enough the fleet's median, and before that the default.

        ``idle_at``: the time, when the worker has nothing to do. One that was slower than the others and is not asked
        any more could never show that it is well again: from time to time it counts as the fastest for a request.
        """
        line = self._lines.get(worker)
        if line is None or line.speed is None:
            return self.usual()
        return line.speed if idle_at is None or idle_at < line.chance_at else self.fastest()

    def speeds(self, lines: Sequence[Line], standings: Sequence[Standing], now: float) -> list[WorkerSpeed]:
        """:meth:`speed` of several workers by their lines; those without requests are idle."""
        return [
            (line.speed if now < line.chance_at or standing[0] else self.fastest()) if line.speed else self.usual()
            for line, standing in zip(lines, standings, strict=True)
        ]

    def line(self, worker: str) -> Line:
        """What :meth:`speeds` takes; good until a worker is forgotten."""
        line = self._lines.get(worker)
        if line is None:
            line = self._lines[worker] = Line()
        return line

    def usual(self) -> WorkerSpeed:
        """The fleet's median."""
        if self._usual is None:
            known = [line.slope for line in self._lines.values() if line.speed]
            self._usual = self._with(median(known)) if known else self._default
        return self._usual

    def fastest(self) -> WorkerSpeed:
        """Of the workers that have shown enough, of which there is one."""
        if self._fastest is None:
            self._fastest = self._with(min(line.slope for line in self._lines.values() if line.speed))
        return self._fastest

    def known(self, worker: str) -> bool:
        """Has ``worker`` shown enough to be judged by its own speed?"""
        line = self._lines.get(worker)
        return line is not None and line.speed is not None

    def forget(self, worker: str) -> None:
        self.forgotten += 1
        self._usual = self._fastest = None
        self._lines.pop(worker, None)

    def _with(self, prefill_ms_per_token: float) -> WorkerSpeed:
        return WorkerSpeed(prefill_ms_per_token, prefill_ms_per_token * self._decode_tokens)
