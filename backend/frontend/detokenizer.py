"""Token ids to text, a few at a time, never cutting a character.

A window of recent tokens is decoded anew with each step, and what grew at its end is given out. A character whose bytes
are not all there decodes to U+FFFD and needs at most three tokens more: for so long everything new is held back. After
that the bytes are taken as broken, and only the last three U+FFFD are held. The window is bounded, so that broken
bytes cost no more than others.

Tokenizers that fall back to bytes (Llama 2, Mistral) decode a run of byte tokens as one: while its last character lacks
a byte, all of the run is U+FFFD, also what was given out already. Such a text is not believed, only waited over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
LONGEST_UNFINISHED = 3  # bytes, hence tokens, of a UTF-8 character that lacks its end
KEPT = 6  # tokens kept before the new ones: a tokenizer may decode a token differently at the start of a text
CONTEXT = KEPT + LONGEST_UNFINISHED  # tokens of the prompt in which a whole character starts near their beginning
WINDOW = 16

Decode = Callable[[list[int]], str]


class IncrementalDetokenizer:
    """Decodes one growing sequence. ``context`` is the end of the prompt: its text is not given out."""

    def __init__(self, decode: Decode, context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window, self._text = self._shortest(list(context))
        if self._text.endswith(REPLACEMENT):
            self._window, self._text = [], ""
        self._given = len(self._text)  # characters of the window's text that are given out
        self._unfinished = 0  # tokens since the text last ended in a whole character

    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with ``ids``."""
        if not ids:
            return ""
        text = self._decode([*self._window, *ids])
        if len(ids) > 1 and text.endswith(REPLACEMENT):
            return "".join(self.push([token]) for token in ids)  # where its last whole character ends must be seen
        if text == self._text and text and not text.endswith(REPLACEMENT):
            return ""  # tokens without text must not push the context out of the window
        self._window.extend(ids)
        self._unfinished += len(ids)
        if self._spoils(text):
            if text.endswith(REPLACEMENT) and self._unfinished <= LONGEST_UNFINISHED:
                return ""
            self._start_anew()
            text = self._text
        self._text = text
        if not text.endswith(REPLACEMENT):
            self._unfinished = 0
        fresh = self._take(len(text) - self._held())
        if len(self._window) > WINDOW:
            self._trim()
        return fresh

    def flush(self) -> str:
        """What is left at the end; an unfinished character comes out as U+FFFD."""
        if self._unfinished and self._spoils(self._decode(self._window)):
            self._start_anew()
        return self._take(len(self._text))

    def _spoils(self, text: str) -> bool:
        """Does the window's new ``text`` take back characters that were given out?"""
        given, now = self._text[: self._given], text[: self._given]
        return now != given and now.count(REPLACEMENT) > given.count(REPLACEMENT)

    def _start_anew(self) -> None:
        """The run of bytes is broken for good: go on with what came after its last whole character."""
        self._window = self._window[-self._unfinished :]
        self._text, self._given = self._decode(self._window), 0

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
        self._window, self._text = self._shortest(self._window)
        self._given = max(0, len(self._text) - held)

    def _shortest(self, tokens: list[int]) -> tuple[list[int], str]:
        """The last ``KEPT`` of ``tokens`` and their text, or some more so that a whole character comes first."""
        window, text = tokens[-KEPT:], ""
        for kept in range(KEPT, CONTEXT + 1):
            window = tokens[-kept:]
            text = self._decode(window) if window else ""
            if not text.startswith(REPLACEMENT) or kept >= len(tokens):
                break
        return window, text
