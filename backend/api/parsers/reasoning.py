"""Reasoning that a model writes before its answer, between two markers."""

from __future__ import annotations

from typing import NamedTuple

from backend.api.parsers.scanning import held_back


class Markers(NamedTuple):
    """How a model marks its reasoning."""

    start: str
    end: str
    also_ends: tuple[str, ...] = ()  # markers that belong to the answer and show that the end was forgotten


THINK = Markers("<think>", "</think>")

REASONING_FORMATS = {
    "deepseek-r1": THINK,
    "qwen3": Markers("<think>", "</think>", ("<tool_call>",)),
    "glm": THINK,
    "kimi": Markers("<think>", "</think>", ("<|tool_calls_section_begin|>",)),
    "mistral": Markers("[THINK]", "[/THINK]"),
    "gemma": Markers("<|channel>thought", "<channel|>"),
}


class ReasoningSplitter:
    """Splits one answer. ``push`` gives what became certain: a piece of the reasoning and a piece of the rest.

    ``inside`` says that the prompt already opened the reasoning. Whitespace around the reasoning is nobody's.
    """

    def __init__(self, markers: Markers, inside: bool = False) -> None:
        self._markers = markers
        self._buffer = ""
        self._inside = inside
        self._decided = False  # whether a start marker was found or can no longer come
        self._over = False
        self._began = False  # a visible character of the reasoning was seen
        self._answered = False  # a visible character of the rest was seen
        self._space = ""

    def push(self, text: str) -> tuple[str, str]:
        self._buffer += text
        if not self._decided and not self._decide():
            return "", ""
        reasoning = "" if self._over else self._reason()
        return reasoning, self._rest() if self._over else ""

    def finish(self) -> tuple[str, str]:
        """What was held back."""
        self._decided = True
        if self._over or not self._inside:
            self._over = True
            rest, self._buffer = self._buffer, ""
            return "", rest
        rest, self._buffer = self._buffer, ""
        return self._visible(rest), ""

    def _decide(self) -> bool:
        """Look for the start marker at the beginning; false while it is not certain."""
        begin = len(self._buffer) - len(self._buffer.lstrip())
        start = self._markers.start
        if self._buffer.startswith(start, begin):
            self._buffer = self._buffer[begin + len(start) :]
            self._inside = True
        elif start.startswith(self._buffer[begin:]):
            return False
        elif not self._inside:
            self._over = self._answered = True
        self._decided = True
        return True

    def _reason(self) -> str:
        markers = self._markers
        places = [
            (place, mark) for mark in (markers.end, *markers.also_ends) if (place := self._buffer.find(mark)) >= 0
        ]
        if places:
            end, _ = min(places)
            piece, self._buffer = self._buffer[:end], self._buffer[end:].removeprefix(markers.end)
            self._over = True
            return self._visible(piece)
        cut = len(self._buffer) - held_back(self._buffer, (markers.end, *markers.also_ends))
        piece, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return self._visible(piece)

    def _visible(self, piece: str) -> str:
        """``piece`` without whitespace at the beginning, and with that at its end held back."""
        text = self._space + piece
        if not self._began:
            text = text.lstrip()
        shown = text.rstrip()
        self._space = text[len(shown) :]
        self._began = self._began or bool(shown)
        return shown

    def _rest(self) -> str:
        rest, self._buffer = self._buffer, ""
        if not self._answered:
            rest = rest.lstrip()
            self._answered = bool(rest)
        return rest
