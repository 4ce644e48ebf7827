"""Stop strings in a text that arrives in pieces.

One Knuth-Morris-Pratt automaton a string: each character moves each automaton once, and the longest current partial
match is what must be held back. The result depends on the text alone, not on how it was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class _Automaton:
    """How much of the end of the text seen so far is the beginning of ``pattern``."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.matched = 0
        self._fallback = _fallbacks(pattern)

    def step(self, character: str) -> bool:
        """Read one character; true when the whole pattern has been seen."""
        while self.matched and self.pattern[self.matched] != character:
            self.matched = self._fallback[self.matched - 1]
        if self.pattern[self.matched] == character:
            self.matched += 1
        return self.matched == len(self.pattern)


def _fallbacks(pattern: str) -> list[int]:
    """For each prefix of ``pattern``: the length of its longest proper prefix that is also its suffix."""
    table = [0] * len(pattern)
    length = 0
    for position in range(1, len(pattern)):
        while length and pattern[length] != pattern[position]:
            length = table[length - 1]
        if pattern[length] == pattern[position]:
            length += 1
        table[position] = length
    return table


class StopMatcher:
    """Finds the stop string that ends first (of several, the longest); lets out only what cannot be part of one."""

    def __init__(self, stops: Sequence[str], keep: bool = False) -> None:
        self._automata = [_Automaton(stop) for stop in stops]
        self._keep = keep  # leave the stop string in the text
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The part of the text that is certain now. After a match nothing comes any more."""
        if self.matched is not None:
            return ""
        buffer = self._held + text
        for position in range(len(self._held), len(buffer)):
            hits = [automaton.pattern for automaton in self._automata if automaton.step(buffer[position])]
            if hits:
                return self._end(buffer[: position + 1], max(hits, key=len))
        hold = max((automaton.matched for automaton in self._automata), default=0)
        self._held = buffer[len(buffer) - hold :]
        return buffer[: len(buffer) - hold]

    def flush(self) -> str:
        """What was held back, once it is known that no more text comes."""
        rest, self._held = self._held, ""
        return rest

    def _end(self, text: str, stop: str) -> str:
        self.matched = stop
        self._held = ""
        return text if self._keep else text[: -len(stop)]


class Stops(Protocol):
    """Something that ends a text; :class:`StopMatcher` says what its parts mean."""

    matched: str | None

    def push(self, text: str) -> str: ...

    def flush(self) -> str: ...


class FirstOf:
    """Several ways to end one text: it ends where the first of them says so, in their order within a token."""

    def __init__(self, stops: Sequence[Stops]) -> None:
        self._stops = stops
        self._lengths = [0] * len(stops)  # characters that each has let out
        self._out = 0  # characters that all have
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The part of the text that is certain for all."""
        if self.matched is not None:
            return ""
        self._held += text
        return self._let_out([stop.push(text) for stop in self._stops])

    def flush(self) -> str:
        """What was held back, once it is known that no more text comes."""
        return self._let_out([stop.flush() for stop in self._stops])

    def _let_out(self, certain: Sequence[str]) -> str:
        self._lengths = [length + len(text) for length, text in zip(self._lengths, certain, strict=True)]
        ended = next((number for number, stop in enumerate(self._stops) if stop.matched is not None), None)
        end = min(self._lengths) if ended is None else self._lengths[ended]
        self.matched = None if ended is None else self._stops[ended].matched
        text, self._held, self._out = self._held[: end - self._out], self._held[end - self._out :], end
        return text
