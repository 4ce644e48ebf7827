"""Qwen 3 Coder, Qwen 3.5 and later.

``<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>``: a value is text between two
newlines, and the tool's schema says what type it has. Models now and then forget the outer tag or the end of a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backend.api.parsers.call_form import CallForm, CallShape
from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import Incomplete, NotACall, expect, find, skip_space, to_json
from backend.api.parsers.schema_types import parameter_schemas, typed
from backend.api.parsers.tool_parser import Found, ToolParser

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END, _PARAMETER = "<function=", "</function>", "<parameter="
# A value may quote the format itself: its end is an end tag with a tag of the outer level behind it, or, where that
# is forgotten, the end of the call or a parameter that the tool has.
_VALUE_END = re.compile(
    r"</parameter>\s*(?=<parameter=|</function>|</tool_call>)|\n(?=</function>\s*</tool_call>)|\n(?=<parameter=([^>\n]+)>\n)"
)


class Qwen3CoderParser(ToolParser):
    starts = (_OPEN, _FUNCTION, _CLOSE)
    closers = (_FUNCTION_END, _CLOSE)
    form = CallForm(
        _OPEN,
        (
            CallShape(
                f"\n{_FUNCTION}$NAME>\n",
                f"{_FUNCTION_END}\n{_CLOSE}",
                parameter=(f"{_PARAMETER}$KEY>\n", "\n</parameter>\n"),
            ),
        ),
    )

    def read(self, text: str, final: bool) -> Found:
        if text.startswith(_CLOSE):  # of a call that began without the outer tag
            return Found(len(_CLOSE), ())
        wrapped = text.startswith(_OPEN)
        position = skip_space(text, len(_OPEN)) if wrapped else 0
        position = expect(text, position, _FUNCTION)
        end = find(text, ">", position)
        name = text[position:end].strip().strip('"')
        if not name or "\n" in name or "<" in name:
            raise NotACall
        arguments, position = self._parameters(text, end + 1, name)
        if wrapped:
            position = expect(text, skip_space(text, position), _CLOSE)
        return Found(position, (ToolCall(name, to_json(arguments)),))

    def _parameters(self, text: str, position: int, name: str) -> tuple[dict[str, Any], int]:
        schemas = parameter_schemas(self.tools, name)
        arguments: dict[str, Any] = {}
        while True:
            position = skip_space(text, position)
            if text.startswith(_PARAMETER, position):
                key_end = find(text, ">", position)
                key = text[position + len(_PARAMETER) : key_end].strip().strip('"')
                match = _value_end(text, key_end, schemas)
                value = text[key_end + 1 : match.start()].removeprefix("\n").removesuffix("\n")
                arguments[key] = typed(value, schemas.get(key))
                position = match.end()
            elif text.startswith(_CLOSE, position):  # the model forgot to close the function
                return arguments, position
            elif _PARAMETER.startswith(text[position:]) or _CLOSE.startswith(text[position:]):
                raise Incomplete
            else:
                return arguments, expect(text, position, _FUNCTION_END)


def _value_end(text: str, position: int, schemas: Mapping[str, Any]) -> re.Match[str]:
    for match in _VALUE_END.finditer(text, position):
        if match[1] is None or match[1] in schemas:
            return match
    raise Incomplete
