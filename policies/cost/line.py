"""One worker's times to first token as a line over the work that they took.

Fixed milliseconds plus milliseconds per prompt token, fitted with exponential forgetting. The fixed part (waiting for
the step under way, the network) is fitted so that short prompts do not make a fast worker look slow; it is not part of
the speed. Where all prompts are alike the two cannot be told apart, and the line goes through the origin.
"""

from __future__ import annotations

import math

from policies.policy import WorkerSpeed

FORGET = 0.97  # weight kept by the past at each observation: the last 33 or so count
SPREAD_TOKENS = 500.0  # times vary in proportion to the work, with this much on top
PRIOR = 0.02  # weight of the line through the origin against the observations
FLATTEST = 8.0  # its slope over that of a line: three times, two of them of a busy moment, may seem to fall with work
TRUSTED = 3  # observations before a worker's own line is looked at
OUTLIER = 8.0  # one observation counts as at most so many times the expected time, and at least its inverse
SLOWEST, FASTEST = 1000.0, 1e-4  # ms per token, whatever is observed
CHANCE_S = 2.0  # without an observation, after which an idle worker counts as the fastest, once
USUAL_NOISE = 0.1  # squared deviation of a time from the line, in logarithms, that an unknown worker is thought to have
ALIKE = 3.0  # measured: neighbouring deviations have one cause (a queue that nobody knows of), so they count as fewer


class Line:
    """Recursive weighted least squares of ``y = fixed + slope * x``, both at least 0.

    ``speed``: None before enough was seen, unless the worker said it. ``chance_at``: when, without an observation, it
    may have changed. ``end_tells``: the last answer told at its end what was cached of its prompt.
    """

    __slots__ = (
        "chance_at", "chance_s", "count", "deviation", "end_tells", "slope", "speed", "w", "wx", "wxx", "wxy", "wy",
    )  # fmt: skip

    def __init__(self) -> None:
        self.end_tells = False
        self.clear()

    def clear(self) -> None:
        self.count = 0
        self.chance_at = math.inf
        self.chance_s = CHANCE_S
        self.slope = 0.0
        self.deviation = USUAL_NOISE  # of the times from what was expected, squared, in logarithms, decayed
        self.speed: WorkerSpeed | None = None
        self.w = self.wx = self.wy = self.wxx = self.wxy = 0.0

    def add(self, x: float, y: float) -> None:
        if self.count >= TRUSTED:
            expected = self.expected(x)
            y = min(max(y, expected / OUTLIER), expected * OUTLIER)
            self.deviation += (1.0 - FORGET) * (math.log(y / expected) ** 2 - self.deviation)
        self.count += 1
        weight = 1.0 / (x + SPREAD_TOKENS)
        self.w = FORGET * self.w + weight
        self.wx = FORGET * self.wx + weight * x
        self.wy = FORGET * self.wy + weight * y
        self.wxx = FORGET * self.wxx + weight * x * x
        self.wxy = FORGET * self.wxy + weight * x * y
        self.slope = min(max(self._fit(), FASTEST), SLOWEST)

    @property
    def error(self) -> float:
        """Squared standard error of the slope's logarithm."""
        return ALIKE * self.deviation / min(self.count, 1.0 / (1.0 - FORGET))

    def expected(self, x: float) -> float:
        """The time that work ``x`` should take."""
        return self.fixed_ms + self.slope * x

    @property
    def fixed_ms(self) -> float:
        """What a request takes beside its work."""
        return max(0.0, (self.wy - self.slope * self.wx) / self.w)

    def _fit(self) -> float:
        origin = self.wxy / self.wxx
        prior = PRIOR * self.wxx
        variance = self.wxx - self.wx * self.wx / self.w
        covariance = self.wxy - self.wx * self.wy / self.w
        return min(max((covariance + prior * origin) / (variance + prior), origin / FLATTEST), origin)
