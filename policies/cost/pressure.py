"""What it costs to push something out of a full cache, learned from how long prefixes rest before they are used again.

The victim is the least recently used prefix. If prefixes that rested as long as it has still come back with chance
``p``, then each evicted token is computed again ``p`` times, which evicts as much once more: ``p / (1 - p)`` tokens in
all. A worker whose oldest prefix is an hour old has a cache full of waste; one whose oldest prefix is ten seconds old
is overcommitted. And conversations grow where they are placed: the tokens of their later turns push out as well.
"""

from __future__ import annotations

from math import frexp

FORGET = 0.998  # the last 500 prompts or so count
BINS = 24  # by powers of two, from a sixteenth of a second to six days
CERTAIN = 0.9  # the chance is cut here: the sum would have no end
GROWTH = 20.0  # measured: what a conversation adds by its end, in what its first prompt adds
HEAVIEST = 1e9  # weight of a prompt at which all are divided by it
ENOUGH = 20.0  # prompts before the statistic is trusted


class Pressure:
    """A decayed histogram of the times between two uses of a prefix.

    Instead of the past losing weight, each new prompt weighs more; only ratios are asked for.
    """

    def __init__(self) -> None:
        self._uses = [0.0] * BINS
        self._prompts = 0.0
        self._weight = 1.0

    def add(self, rested: float | None) -> None:
        """A prompt was sent. ``rested``: seconds since the prompt that it continues; None when it continues none."""
        weight = self._weight = self._weight / FORGET
        self._prompts += weight
        if rested is not None:
            self._uses[_bin(rested)] += weight
        if weight > HEAVIEST:
            self._uses = [count / weight for count in self._uses]
            self._prompts /= weight
            self._weight = 1.0

    def recomputed(self, age: float) -> float:
        """Tokens computed again for each one placed now, when that evicts what has rested for ``age`` seconds."""
        if self._prompts < ENOUGH * self._weight:
            return 0.0
        first = _bin(age)
        later = sum(self._uses[first + 1 :]) + self._uses[first] / 2.0
        still_resting = self._prompts - sum(self._uses[:first])
        chance = min(later / max(still_resting, later), CERTAIN) if later else 0.0
        return (1.0 + GROWTH) * chance / (1.0 - chance)


def _bin(seconds: float) -> int:
    return min(max(frexp(seconds)[1] + 4, 0), BINS - 1)
