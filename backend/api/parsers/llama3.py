"""Llama 3: ``{"name": ..., "parameters": {...}}`` as the whole answer, or after ``<|python_tag|>``.

Several calls are separated by semicolons. An object without a name is an answer in JSON, not a call.
"""

from __future__ import annotations

from backend.api.parsers.call_form import CallForm, CallShape
from backend.api.parsers.calls import call_of
from backend.api.parsers.scanning import Incomplete, NotACall, json_end, json_value, skip_space
from backend.api.parsers.tool_parser import Found, ToolParser

_TAG = "<|python_tag|>"
_SEPARATORS = (";", ",")


class Llama3Parser(ToolParser):
    starts = (_TAG,)
    closers = ("{", "}")
    form = CallForm(
        _TAG, (CallShape('{"name": "$NAME", "parameters": ', "}", between="; "),), bare=r'[ \n]*\{[ \n]*"name"'
    )
    drops_fragments = False  # an answer may be JSON too

    def find_start(self, text: str, fresh: bool) -> tuple[int, bool]:
        begin = skip_space(text, 0)
        if fresh and text.startswith(("{", *_SEPARATORS), begin):
            return begin, True
        return super().find_start(text, fresh)

    def read(self, text: str, final: bool) -> Found:
        if text.startswith(_SEPARATORS):
            return _separator(text)
        begin = skip_space(text, len(_TAG)) if text.startswith(_TAG) else 0
        end = json_end(text, begin)
        return Found(end, (call_of(json_value(text[begin:end]), "parameters", "arguments"),))


def _separator(text: str) -> Found:
    """A semicolon counts as one where an object follows."""
    after = skip_space(text, 1)
    if after == len(text):
        raise Incomplete
    if text[after] != "{":
        raise NotACall
    return Found(after, ())
