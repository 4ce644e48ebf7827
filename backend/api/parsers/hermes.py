"""Qwen 2.5, Qwen 3 and Hermes: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``."""

from __future__ import annotations

from backend.api.parsers.call_form import CallForm, CallShape
from backend.api.parsers.calls import call_of
from backend.api.parsers.scanning import expect, json_end, json_value, skip_space
from backend.api.parsers.tool_parser import Found, ToolParser

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class HermesParser(ToolParser):
    starts = (_OPEN,)
    closers = (_CLOSE,)
    form = CallForm(_OPEN, (CallShape('\n{"name": "$NAME", "arguments": ', f"}}\n{_CLOSE}"),))

    def read(self, text: str, final: bool) -> Found:
        begin = skip_space(text, len(_OPEN))
        end = json_end(text, begin)
        after = expect(text, skip_space(text, end), _CLOSE)
        return Found(after, (call_of(json_value(text[begin:end])),))
