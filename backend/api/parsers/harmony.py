"""gpt-oss: the harmony format, messages on channels.

``<|channel|>analysis<|message|>...<|end|>`` is reasoning, a message to ``functions.NAME`` is a call, the rest is the
answer. The answer's first header begins in the prompt: the model goes on behind ``<|start|>assistant``.
"""

from __future__ import annotations

import re
import secrets

from backend.api.parsers.events import Parsed, ToolCall, join
from backend.api.parsers.scanning import Incomplete, NotACall, held_back, json_end, object_text, skip_space

_START, _MESSAGE, _END, _CALL, _RETURN = "<|start|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>"
REASONING = ("<|channel|>analysis", _END)  # what each of its messages begins and ends with
_ENDS = (_END, _CALL, _RETURN)
_HEADER_BEGINS = (_START, "<|channel|>", "<|constrain|>", _MESSAGE, "to=", "assistant")
_TEXTS = ("reasoning", "content", "hidden")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.\-]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyParser:
    """Reads one answer. ``push`` its text in pieces, then ``finish``."""

    def __init__(self) -> None:
        self._buffer = ""
        self._body: str | None = None  # one of _TEXTS, or "functions.NAME"; None: in a header

    def call_id(self) -> str:
        """A name for a call; the format has none."""
        return f"call_{secrets.token_hex(12)}"

    def push(self, text: str) -> Parsed:
        """What became certain with ``text``."""
        self._buffer += text
        return join(self._advance())

    def finish(self, truncated: bool = False) -> Parsed:
        """What is left at the end; a call that was cut off is dropped."""
        pieces = self._advance()
        rest, self._buffer = self._buffer, ""
        if self._body in _TEXTS:
            pieces.append(self._text(rest))
        elif not truncated and not rest.lstrip().startswith(_HEADER_BEGINS):
            pieces.append(Parsed(content=rest))
        return join(pieces)

    def _advance(self) -> list[Parsed]:
        pieces: list[Parsed] = []
        try:
            while self._buffer:
                if self._body is None:
                    self._header()
                elif self._body in _TEXTS:
                    pieces.append(self._stream_text())
                else:
                    pieces.append(self._read_call())
        except Incomplete:
            pass
        return pieces

    def _header(self) -> None:
        """Up to the message; text that is no header is the answer itself."""
        rest = self._buffer.lstrip()
        if (mark := next((mark for mark in _ENDS if rest.startswith(mark)), None)) is not None:
            self._buffer = rest[len(mark) :]
            return
        if not rest.startswith(_HEADER_BEGINS):
            if any(mark.startswith(rest) for mark in (*_HEADER_BEGINS, *_ENDS)):
                raise Incomplete
            self._body = "content"
            return
        end = self._buffer.find(_MESSAGE)
        if end < 0:
            raise Incomplete
        header, self._buffer = self._buffer[:end], self._buffer[end + len(_MESSAGE) :]
        recipient, channel = _RECIPIENT.search(header), _CHANNEL.search(header)
        if recipient is not None:
            self._body = f"functions.{recipient[1]}"
        else:
            self._body = "reasoning" if channel is not None and channel[1] == "analysis" else "content"

    def _stream_text(self) -> Parsed:
        # Reasoning may talk of the format; its own end is one of two.
        ends = (_END, _START) if self._body == "reasoning" else (*_ENDS, _START)
        places = [(place, mark) for mark in ends if (place := self._buffer.find(mark)) >= 0]
        if not places:
            cut = len(self._buffer) - held_back(self._buffer, ends)
            if cut == 0:
                raise Incomplete
            piece, self._buffer = self._buffer[:cut], self._buffer[cut:]
            return self._text(piece)
        place, mark = min(places)
        parsed = self._text(self._buffer[:place])
        self._buffer = self._buffer[place:] if mark == _START else self._buffer[place + len(mark) :]
        self._body = None
        return parsed

    def _read_call(self) -> Parsed:
        name = str(self._body).removeprefix("functions.")
        begin = skip_space(self._buffer, 0)
        try:
            end = json_end(self._buffer, begin)
            call = ToolCall(name, object_text(self._buffer[begin:end]))
        except NotACall:  # words for a tool that is none of the client's, such as python
            self._body = "hidden"
            return Parsed()
        self._buffer, self._body = self._buffer[end:], None
        return Parsed(calls=(call,))

    def _text(self, piece: str) -> Parsed:
        if self._body == "hidden":
            return Parsed()
        return Parsed(reasoning=piece) if self._body == "reasoning" else Parsed(content=piece)
