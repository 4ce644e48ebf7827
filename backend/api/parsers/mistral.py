"""Mistral: ``[TOOL_CALLS]`` and then a JSON list of calls, or since 2025 ``NAME[ARGS]{...}`` for each call.

A call id may stand between name and arguments: ``NAME[CALL_ID]ID[ARGS]{...}``.
"""

from __future__ import annotations

import re
import secrets
import string

from backend.api.parsers.call_form import CallForm, CallShape
from backend.api.parsers.calls import call_of
from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import Incomplete, NotACall, json_end, json_value, object_text, skip_space
from backend.api.parsers.tool_parser import Found, ToolParser

_OPEN = "[TOOL_CALLS]"
_HEAD = re.compile(r"\s*([\w.\-]+)\s*(?:\[CALL_ID\]([A-Za-z0-9]+))?\s*(?:\[ARGS\])?\s*(?=\{)")
_HEAD_SO_FAR = re.compile(r"\s*[\w.\-]*\s*(?:\[[A-Z_]*(?:\][A-Za-z0-9]*(?:\[[A-Z]*\]?)?)?)?\s*")
_ID_ALPHABET = string.ascii_letters + string.digits


class MistralParser(ToolParser):
    starts = (_OPEN,)
    closers = ("}", "]")
    form = CallForm(
        _OPEN,
        (
            CallShape("$NAME[ARGS]", ""),
            CallShape("$NAME[CALL_ID]$ID[ARGS]", ""),
            CallShape('{"name": "$NAME", "arguments": ', "}", between=", ", opens="[", closes="]"),
        ),
    )

    def call_id(self) -> str:
        """The model's templates refuse ids that are not nine letters and digits."""
        return "".join(secrets.choice(_ID_ALPHABET) for _ in range(9))

    def read(self, text: str, final: bool) -> Found:
        begin = skip_space(text, len(_OPEN))
        if begin == len(text):
            raise Incomplete
        if text[begin] == "[":
            return _list(text, begin, final)
        if text[begin] == "{":
            end = json_end(text, begin)
            return Found(end, (call_of(json_value(text[begin:end])),))
        head = _HEAD.match(text, begin)
        if head is None:
            raise Incomplete if _HEAD_SO_FAR.fullmatch(text, begin) else NotACall
        end = json_end(text, head.end())
        return Found(end, (ToolCall(head[1], object_text(text[head.end() : end]), head[2] or ""),))


def _list(text: str, begin: int, final: bool) -> Found:
    """The calls of a JSON list; at the end of the text those that are complete."""
    try:
        end = json_end(text, begin)
    except Incomplete:
        if not final:
            raise
        return _complete_ones(text, begin + 1)
    values = json_value(text[begin:end])
    return Found(end, tuple(call_of(value) for value in values))


def _complete_ones(text: str, position: int) -> Found:
    calls: list[ToolCall] = []
    try:
        while True:
            begin = skip_space(text, position)
            end = json_end(text, begin)
            calls.append(call_of(json_value(text[begin:end])))
            position = end + 1 if text.startswith(",", end) else end
    except (Incomplete, NotACall):
        if not calls:
            raise Incomplete from None
        return Found(len(text), tuple(calls))
