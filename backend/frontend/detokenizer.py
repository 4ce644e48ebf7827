"""Token ids to text, a few at a time, never cutting a character.

A window of recent tokens is decoded anew with each step, and what grew at its end is given out. A character whose bytes
are not all there decodes to U+FFFD and needs at most three tokens more: for so long everything new is held back. After
that the bytes are taken as broken, and only the last three U+FFFD are held. The window is bounded, so that broken
bytes cost no more than others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
LONGEST_UNFINISHED = 3  # bytes, hence tokens, of a UTF-8 character that lacks its end
CONTEXT = 6  # tokens kept before the new ones: a tokenizer may decode a token differently at the start of a text
WINDOW = 16

Decode = Callable[[list[int]], str]


class IncrementalDetokenizer:
    """Decodes one growing sequence. ``context`` is the end of the prompt: its text is not given out."""

    def __init__(self, decode: Decode, context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window = list(context[-CONTEXT:])
        self._text = decode(self._window) if self._window else ""
        if self._text.endswith(REPLACEMENT):
            self._window, self._text = [], ""
        self._given = len(self._text)  # characters of the window's text that are given out
        self._unfinished = 0  # tokens since the text last ended in a whole character

    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with ``ids``."""
        if not ids:
            return ""
        self._window.extend(ids)
        text = self._decode(self._window)
        if text == self._text and not text.endswith(REPLACEMENT):
            del self._window[-len(ids) :]  # tokens without text must not push the context out of the window
            return ""
        self._text = text
        self._unfinished = self._unfinished + len(ids) if text.endswith(REPLACEMENT) else 0
        fresh = self._take(len(text) - self._held())
        if len(self._window) > WINDOW:
            self._trim()
        return fresh

    def flush(self) -> str:
        """What is left at the end; an unfinished character comes out as U+FFFD."""
        return self._take(len(self._text))

    def _held(self) -> int:
        """Characters at the end of the window's text that may still change."""
        if self._unfinished == 0:
            return 0
        if self._unfinished <= LONGEST_UNFINISHED:
            return len(self._text) - self._given
        broken = len(self._text) - len(self._text.rstrip(REPLACEMENT))
        return min(broken, LONGEST_UNFINISHED)

    def _take(self, end: int) -> str:
        fresh = self._text[self._given : end]
        self._given += len(fresh)
        return fresh

    def _trim(self) -> None:
        """Forget old tokens, at a cut between two characters if one is near."""
        held = len(self._text) - self._given
        for kept in range(CONTEXT, CONTEXT + LONGEST_UNFINISHED + 1):
            window = self._window[-kept:]
            text = self._decode(window)
            if not text.startswith(REPLACEMENT):
                break
        self._window, self._text = window, text
        self._given = max(0, len(text) - held)
