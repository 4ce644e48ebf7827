"""Kimi K2: ``<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{...}<|tool_call_end|>``.

The model's own id (``functions.NAME:INDEX``) is kept: its template repeats it with the tool's result.
"""

from __future__ import annotations

from backend.api.parsers.call_form import CallForm, CallShape
from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import NotACall, expect, find, json_end, object_text, skip_space
from backend.api.parsers.tool_parser import Found, ToolParser

_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"


class KimiParser(ToolParser):
    starts = (_BEGIN,)
    closers = (_END,)
    section = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
    form = CallForm(section[0], (CallShape(f"{_BEGIN}functions.$NAME:$INDEX{_ARGUMENTS}", _END, closes=section[1]),))
    keeps_space = True

    def read(self, text: str, final: bool) -> Found:
        head_end = find(text, _ARGUMENTS, 0)
        call_id = text[len(_BEGIN) : head_end].strip()
        name = call_id.partition(":")[0].removeprefix("functions.")
        if not name or "<|" in name:
            raise NotACall
        begin = skip_space(text, head_end + len(_ARGUMENTS))
        end = json_end(text, begin)
        after = expect(text, skip_space(text, end), _END)
        return Found(after, (ToolCall(name, object_text(text[begin:end]), call_id),))
