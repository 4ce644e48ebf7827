"""Prefill speed of each worker, learned from the times to first token that it showed.

Each worker has a line (:mod:`policies.cost.line`) over own uncached tokens, tokens ahead, and running decodes at the
price of so many prompt tokens as the default speed says: that ratio holds far better from machine to machine than any
time does.

What a line says beyond the fleet's median is believed as far as the workers differ by more than their lines err
(empirical Bayes: Efron and Morris, "Stein's Estimation Rule and Its Competitors", 1973). Otherwise the noise of a few
dozen times would draw requests to workers that look fast by chance; and other routers' work, which lengthens times
without being seen, would do so all the more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, median

from policies.cost.leases import Standing
from policies.cost.line import CHANCE_S, FASTEST, TRUSTED, Line
from policies.policy import WorkerLoad, WorkerSpeed

MIN_TOKENS = 32  # below this the fixed part of a request hides its prefill
SCATTER = 0.7  # measured: with none, late first tokens of a busy machine pass for lost caches; with 1.0 those come late
CHANGED = 2.0  # a worker so many times faster than it was is another one
CHANCE_GROWTH, LONGEST_CHANCE_S = 1.5, 120.0  # of the time to a second chance, for each one that showed nothing new


class RateBook:
    """The speeds of all workers."""

    def __init__(self, default: WorkerSpeed | None = None) -> None:
        self._default = default or WorkerSpeed()
        self._decode_tokens = self._default.decode_ms_per_step / self._default.prefill_ms_per_token
        self.forgotten = 0  # how often a worker was: whoever keeps lines asks for new ones then
        self._lines: dict[str, Line] = {}
        self._centre, self._spread = 0.0, 0.0  # of the slopes' logarithms: median, and variance beyond their errors
        self._unfitted = 0  # observations since these were worked out
        self._usual: WorkerSpeed | None = None  # kept until the next fit
        self._brisk: WorkerSpeed | None = None

    def observe(
        self, worker: str, uncached_tokens: int, load: WorkerLoad, ttft_ms: float, now: float = math.inf
    ) -> None:
        """``worker`` answered ``now`` after ``ttft_ms``; ``load`` is what it had in flight when the prompt was sent."""
        tokens = uncached_tokens + load.waiting_tokens(self.speed(worker).prefill_ms_per_token)
        if tokens >= MIN_TOKENS and ttft_ms > 0:
            work = tokens + load.running * self._decode_tokens
            line = self.line(worker)
            if line.count >= TRUSTED and line.chance_at <= now < math.inf:
                if ttft_ms * CHANGED < line.expected(work):
                    line.clear()  # what it was like tells nothing
                else:
                    line.chance_s = min(line.chance_s * CHANCE_GROWTH, LONGEST_CHANCE_S)
            line.add(work, ttft_ms)
            if line.count >= TRUSTED:
                line.chance_at = now + line.chance_s
                self._believe(line)

    def seed(self, worker: str, prefill_ms_per_token: float, now: float = math.inf) -> None:
        """What ``worker`` says of its speed counts until its own times to first token do.

        It gets a chance to show them: what it measured may have been the first prompt of a cold process.
        """
        line = self.line(worker)
        if line.count < TRUSTED:
            line.chance_at = now + CHANCE_S
            line.speed = self._with(max(prefill_ms_per_token, FASTEST))
            self._usual = self._brisk = None

    def speed(self, worker: str, idle_at: float | None = None) -> WorkerSpeed:
        """What ``worker`` showed; before it has shown enough what it said, else the fleet's median, else the default.

        ``idle_at``: the time, when the worker has nothing to do. One that was slower than the others and is not asked
        any more could never show that it is well again: from time to time it counts as :meth:`brisk` for a request.
        """
        line = self._lines.get(worker)
        if line is None or line.speed is None:
            return self.usual()
        return line.speed if idle_at is None or idle_at < line.chance_at else min(line.speed, self.brisk())

    def speeds(self, lines: list[Line], standings: list[Standing], now: float) -> list[WorkerSpeed]:
        """:meth:`speed` of several workers by their lines; those without requests are idle."""
        usual = self._usual or self.usual()
        return [
            (line.speed if now < line.chance_at or standing.requests else min(line.speed, self.brisk()))
            if line.speed
            else usual
            for line, standing in zip(lines, standings)  # noqa: B905 - compiled, the strict form costs thrice as much
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
            known = [line.speed.prefill_ms_per_token for line in self._lines.values() if line.speed]
            self._usual = self._with(median(known)) if known else self._default
        return self._usual

    def brisk(self) -> WorkerSpeed:
        """What the fastest quarter of the workers reach that have shown enough, of which there is one.

        Not the fastest: in a large fleet that is one which looks fast by chance, and many are due for a second one.
        """
        if self._brisk is None:
            known = sorted(line.speed for line in self._lines.values() if line.speed)
            self._brisk = known[(len(known) - 1) // 4] if known else self.usual()
        return self._brisk

    def known(self, worker: str) -> bool:
        """Has ``worker`` shown enough to be judged by its own speed?"""
        line = self._lines.get(worker)
        return line is not None and line.count >= TRUSTED

    def ended(self, worker: str, told: bool) -> None:
        """An answer of ``worker`` ended, and told there what was cached of its prompt, or did not."""
        line = self._lines.get(worker)
        if line is not None:
            line.end_tells = told

    def better_at_end(self, worker: str, cached_tokens: int) -> bool:
        """Is the time to first token of a prompt that was thought to have so many better learned from at its end?

        The turns of a chat find the answer cached too that they continue, which only that end tells. Learned from with
        what was expected, the times of such prompts made a worker look three times as fast as it is.
        """
        line = self._lines.get(worker)
        return line is not None and line.end_tells and cached_tokens > 0

    def tokens_in(self, worker: str, ms: float, decodes: int) -> float | None:
        """Prompt tokens that ``worker`` surely needs so many ms for beside ``decodes``; None while its speed is open.

        Its times scatter: what :data:`SCATTER` of a standard deviation may add is not counted.
        """
        line = self._lines.get(worker)
        if line is None or line.speed is None or line.count < TRUSTED:
            return None
        surely_ms = ms * math.exp(-SCATTER * math.sqrt(line.deviation))
        return (surely_ms - line.fixed_ms) / line.speed.prefill_ms_per_token - decodes * self._decode_tokens

    def forget(self, worker: str) -> None:
        self.forgotten += 1
        self._usual = self._brisk = None
        self._lines.pop(worker, None)

    def _believe(self, line: Line) -> None:
        """``line`` has one observation more: work out its speed, and from time to time everybody's."""
        self._unfitted += 1
        if line.count == TRUSTED or self._unfitted >= len(self._lines):
            self._fit([each for each in self._lines.values() if each.count >= TRUSTED])
        else:
            line.speed = self._speed_of(line)

    def _fit(self, known: Sequence[Line]) -> None:
        """What the workers have in common, and how much they differ."""
        self._unfitted = 0
        self._usual = self._brisk = None
        self._centre = math.log(median(line.slope for line in known))
        differences = mean((math.log(line.slope) - self._centre) ** 2 for line in known)
        self._spread = max(0.0, differences - mean(line.error for line in known))
        for line in known:
            line.speed = self._speed_of(line)

    def _speed_of(self, line: Line) -> WorkerSpeed:
        believed = self._spread / (self._spread + line.error)
        return self._with(math.exp(self._centre + believed * (math.log(line.slope) - self._centre)))

    def _with(self, prefill_ms_per_token: float) -> WorkerSpeed:
        return WorkerSpeed(prefill_ms_per_token, prefill_ms_per_token * self._decode_tokens)
