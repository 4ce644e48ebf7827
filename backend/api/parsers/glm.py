"""GLM 4.5 and later: ``<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>``.

Values are bare text; the tool's schema says what type they have.
"""

from __future__ import annotations

import re
from typing import Any

from backend.api.parsers.call_form import CallForm, CallShape
from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import Incomplete, NotACall, expect, find, skip_space, to_json
from backend.api.parsers.schema_types import parameter_schemas, typed
from backend.api.parsers.tool_parser import Found, ToolParser

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_KEY, _KEY_END, _VALUE = "<arg_key>", "</arg_key>", "<arg_value>"
_NAME = re.compile(r"\s*([^\s<]+)\s*(?=<arg_key>|</tool_call>)")
# The end tag of a value counts when the format goes on behind it: values may quote the tags. Models now and then
# forget the tag before the end of the call.
_VALUE_END = re.compile(r"</arg_value>\s*(?=<arg_key>|</tool_call>)")


class GlmParser(ToolParser):
    starts = (_OPEN,)
    closers = (_CLOSE,)
    form = CallForm(
        _OPEN,
        (CallShape("$NAME$BR", _CLOSE, parameter=(f"{_KEY}$KEY{_KEY_END}$BR{_VALUE}", "</arg_value>$BR")),),
    )

    def read(self, text: str, final: bool) -> Found:
        match = _NAME.match(text, len(_OPEN))
        if match is None:
            raise NotACall if _cannot_be_a_name(text[len(_OPEN) :]) else Incomplete
        name, position = match[1], match.end()
        schemas = parameter_schemas(self.tools, name)
        arguments: dict[str, Any] = {}
        while not text.startswith(_CLOSE, position):
            key, value, position = _argument(text, position, final)
            arguments[key] = typed(value, schemas.get(key))
        return Found(position + len(_CLOSE), (ToolCall(name, to_json(arguments)),))


def _cannot_be_a_name(text: str) -> bool:
    """Whether no more text can turn ``text`` into a name with a tag behind it."""
    name, tag, rest = text.strip().partition("<")
    return (
        len(name.split()) > 1
        or (bool(tag) and not name)
        or (bool(tag) and not any(mark.startswith(tag + rest) for mark in (_KEY, _CLOSE)))
    )


def _argument(text: str, position: int, final: bool) -> tuple[str, str, int]:
    """Key, value and the position after them."""
    if _CLOSE.startswith(text[position:]):
        raise Incomplete
    begin = expect(text, position, _KEY)
    key_end = find(text, _KEY_END, begin)
    value_begin = expect(text, skip_space(text, key_end + len(_KEY_END)), _VALUE)
    key = text[begin:key_end].strip()
    match = _VALUE_END.search(text, value_begin)
    if match is not None:
        return key, text[value_begin : match.start()], match.end()
    if final and (forgotten := text.find(_CLOSE, value_begin)) >= 0:
        return key, text[value_begin:forgotten], forgotten
    raise Incomplete
