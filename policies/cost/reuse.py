"""How often each prefix was asked for lately: computing a hot one on a second worker is an investment, not a waste."""

from __future__ import annotations

from collections import OrderedDict
from math import exp2

HALF_LIFE_S = 10.0
MAX_PREFIXES = 4096  # the least recently used is forgotten
STEP_BYTES = 1024  # prefixes are told apart at this grain: siblings share some bytes by chance
TAIL_BYTES = 256  # the end of a prefix and its length name it well enough for a statistic


class PrefixReuse:
    """Decayed counts of matched prefixes, bounded."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[int, bytes], tuple[float, float]] = OrderedDict()

    def recent(self, text: bytes, matched: int, now: float) -> float:
        """How many recent requests began with the first ``matched`` bytes of ``text``."""
        key = _key(text, matched)
        return 0.0 if key is None else self._count(key, now)

    def _count(self, key: tuple[int, bytes], now: float) -> float:
        known = self._counts.get(key)
        return 0.0 if known is None else known[0] * exp2(-max(0.0, now - known[1]) / HALF_LIFE_S)

    def add(self, text: bytes, matched: int, now: float) -> None:
        """One more request that began so."""
        key = _key(text, matched)
        if key is None:
            return
        self._counts[key] = (self._count(key, now) + 1.0, now)
        self._counts.move_to_end(key)
        if len(self._counts) > MAX_PREFIXES:
            self._counts.popitem(last=False)


def _key(text: bytes, matched: int) -> tuple[int, bytes] | None:
    length = matched - matched % STEP_BYTES
    return (length, text[length - TAIL_BYTES : length]) if length else None
