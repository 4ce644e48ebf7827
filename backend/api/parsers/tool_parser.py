"""The base of the tool-call formats: finds where a call may begin, and lets a format read it.

A call is given out when it is complete and never before: a client could not take back half a call, and one that was
cut off by the output's limit must not be run. What is given out depends on the text alone, not on how it was cut.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from backend.api.parsers.call_form import CallForm
from backend.api.parsers.events import Parsed, ToolCall, join
from backend.api.parsers.scanning import Incomplete, NotACall, held_back

Tools = Sequence[Mapping[str, Any]]  # as in a chat request: {"type": "function", "function": {...}}


EAGER_CHARACTERS = 256  # what begins like a call is read again with each piece up to this length


class Found(NamedTuple):
    """Calls, and the position after them."""

    end: int
    calls: tuple[ToolCall, ...]


class ToolParser(ABC):
    """Reads one answer. ``push`` its text in pieces, then ``finish``."""

    starts: ClassVar[tuple[str, ...]]  # markers at which a call may begin
    section: ClassVar[tuple[str, str] | None] = None  # markers around all calls; other text between them is noise
    closers: ClassVar[tuple[str, ...]]  # every call ends in one of these, or soon after
    keeps_space: ClassVar[bool] = False  # whitespace before a call is the answer's, not the format's
    form: ClassVar[CallForm | None] = None  # how calls are written; None where a grammar cannot hold them to it
    drops_fragments: ClassVar[bool] = True  # what is left of a call when the output was cut off is not shown

    def __init__(self, tools: Tools = ()) -> None:
        self.tools = tools
        self._buffer = ""
        self._space = ""  # whitespace that may turn out to stand before a call
        self._fresh = True  # no text since the beginning or the last call
        self._in_section = False
        self._waiting = False  # the buffer begins with an incomplete call

    @abstractmethod
    def read(self, text: str, final: bool) -> Found:
        """The calls at the beginning of ``text``, which starts with one of ``starts``.

        Raises Incomplete when more text is needed, NotACall when it is none; more text must not change an answer.
        ``final`` says that no more text comes.
        """

    def call_id(self) -> str:
        """A name for a call that the model gave none."""
        return f"call_{secrets.token_hex(12)}"

    def push(self, text: str) -> Parsed:
        """What became certain with ``text``."""
        self._buffer += text
        if self._waiting and not self._may_be_complete(len(text)):
            return Parsed()
        return join(self._advance(final=False))

    def finish(self, truncated: bool = False) -> Parsed:
        """What is left at the end; ``truncated`` when the output was cut off by its limit."""
        pieces = self._advance(final=True)
        rest, self._buffer = self._buffer, ""
        if not (truncated and self.drops_fragments):
            pieces.append(self._content(rest))
        if not self._fresh:
            pieces.append(Parsed(content=self._space))
        return join(pieces)

    def find_start(self, text: str, fresh: bool) -> tuple[int, bool]:
        """Up to where ``text`` holds no call, and whether one may begin there. ``fresh``: no text came before."""
        markers = self._markers()
        places = [place for marker in markers if (place := text.find(marker)) >= 0]
        if places:
            return min(places), True
        return len(text) - held_back(text, markers), False

    def _may_be_complete(self, fresh: int) -> bool:
        """Whether it is worth reading a long call again after ``fresh`` more characters."""
        if len(self._buffer) <= EAGER_CHARACTERS:
            return True
        reach = fresh + max(map(len, self.closers))
        return any(closer in self._buffer[-reach:] for closer in self.closers)

    def _markers(self) -> tuple[str, ...]:
        return self.starts if self.section is None else (*self.starts, *self.section)

    def _advance(self, final: bool) -> list[Parsed]:
        """Take what can be understood off the buffer. At the end, what is left is a fragment of a call or a marker."""
        pieces: list[Parsed] = []
        self._waiting = False
        while self._buffer:
            end, begins = self.find_start(self._buffer, self._fresh)
            pieces.append(self._content(self._take(end)))
            if not begins:
                break
            if self._pass_section_marker():
                continue
            try:
                found = self.read(self._buffer, final)
            except Incomplete:
                self._waiting = True
                break
            except NotACall:
                pieces.append(self._content(self._take(1)))
                continue
            self._take(found.end)
            pieces.append(self._calls(found.calls))
        return pieces

    def _pass_section_marker(self) -> bool:
        for marker, inside in zip(self.section or (), (True, False), strict=False):
            if self._buffer.startswith(marker):
                self._take(len(marker))
                self._in_section = inside
                self._drop_space()
                return True
        return False

    def _calls(self, calls: tuple[ToolCall, ...]) -> Parsed:
        kept = self._space if self.keeps_space and not self._fresh else ""
        self._space, self._fresh = "", True
        return Parsed(content=kept, calls=calls)

    def _drop_space(self) -> None:
        if not self.keeps_space:
            self._space = ""

    def _content(self, text: str) -> Parsed:
        """Text of the answer; whitespace at its end waits for what follows."""
        if self._in_section or not text:
            return Parsed()
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if shown:
            self._fresh = False
        return Parsed(content=shown)

    def _take(self, count: int) -> str:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken
