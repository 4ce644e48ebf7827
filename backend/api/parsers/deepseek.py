"""DeepSeek V3, R1 and V3.1: calls between control tokens, in one section at the end of the answer.

V3 writes ``function<sep>NAME`` and the arguments in a fenced block, V3.1 ``NAME<sep>ARGUMENTS``.
"""

from __future__ import annotations

from backend.api.parsers.call_form import CallForm, CallShape
from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import NotACall, expect, find, json_end, object_text, skip_space
from backend.api.parsers.tool_parser import Found, ToolParser

_BEGIN, _END, _SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_FENCE, _FENCE_END = "```json", "```"


class DeepSeekParser(ToolParser):
    starts = (_BEGIN,)
    closers = (_END,)
    section = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
    form = CallForm(
        section[0],
        (
            CallShape(f"{_BEGIN}$NAME{_SEPARATOR}", _END, closes=section[1]),
            CallShape(
                f"{_BEGIN}function{_SEPARATOR}$NAME\n{_FENCE}\n",
                f"\n{_FENCE_END}{_END}",
                between="\n",
                closes=section[1],
            ),
        ),
    )

    def read(self, text: str, final: bool) -> Found:
        separator = find(text, _SEPARATOR, 0)
        name = text[len(_BEGIN) : separator].strip()
        position = separator + len(_SEPARATOR)
        fenced = name == "function"
        if fenced:
            line_end = find(text, "\n", position)
            name = text[position:line_end].strip()
            position = expect(text, skip_space(text, line_end), _FENCE)
        if not name or "<" in name:
            raise NotACall
        begin = skip_space(text, position)
        end = json_end(text, begin)
        arguments = object_text(text[begin:end])
        position = skip_space(text, end)
        if fenced:
            position = skip_space(text, expect(text, position, _FENCE_END))
        return Found(expect(text, position, _END), (ToolCall(name, arguments),))
