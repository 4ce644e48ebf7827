"""From token ids to the text that a client may see: detokenising, then stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from backend.frontend.stop import Stops
from backend.frontend.stop_regex import StopRegexError


class Detokenizer(Protocol):
    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with ``ids``."""

    def flush(self) -> str:
        """What was held back, once no more ids come."""


class TextStream:
    """The text of one request. ``matched`` is the stop string or expression that ended it."""

    __slots__ = ("detokenizer", "stops")

    def __init__(self, detokenizer: Detokenizer, stops: Stops | None) -> None:
        self.detokenizer = detokenizer
        self.stops = stops

    @property
    def matched(self) -> str | None:
        return self.stops.matched if self.stops else None

    def push(self, ids: Sequence[int]) -> tuple[str, int]:
        """The text that became certain, and how many of ``ids`` were used: the rest comes after a stop string.

        Raises StopRegexError when a stop expression takes too long.
        """
        if self.stops is None:
            return self.detokenizer.push(ids), len(ids)
        parts = []
        for used, token in enumerate(ids, 1):
            parts.append(self.stops.push(self.detokenizer.push([token])))
            if self.stops.matched is not None:
                return "".join(parts), used
        return "".join(parts), len(ids)

    def finish(self) -> str:
        """The text that was held back until the end was known."""
        rest = self.detokenizer.flush()
        if self.stops is None:
            return rest
        try:
            return self.stops.push(rest) + self.stops.flush()
        except StopRegexError:  # nothing is left to stop: what was held is shown, not lost
            return self.stops.flush()
