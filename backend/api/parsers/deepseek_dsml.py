"""DeepSeek V3.2 and V4: markup with the letters DSML in every tag.

``<DSML invoke name="NAME"><DSML parameter name="KEY" string="true">VALUE</DSML parameter></DSML invoke>``, all calls
in one section whose tag has a name of its own in each version. ``string`` says whether a value is text or JSON.
"""

from __future__ import annotations

import re
from typing import Any

from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import Incomplete, NotACall, json_value, to_json
from backend.api.parsers.tool_parser import Found, ToolParser

_TAG = "<｜DSML｜"
_END_TAG = "</｜DSML｜"
_SECTION = re.compile(r"</?｜DSML｜\s*(?:function_calls|tool_calls|calls)\s*>")
_INVOKE = re.compile(r'<｜DSML｜\s*invoke\s+name="([^"]+)"\s*(/)?>\s*')
_INVOKE_END = re.compile(r"</｜DSML｜\s*invoke\s*>")
_PARAMETER = re.compile(r'<｜DSML｜\s*parameter\s+name="([^"]+)"(?:\s+string="(true|false)")?\s*>')
# Values may quote the tags: the end tag counts when the format goes on behind it.
_PARAMETER_END = re.compile(r"</｜DSML｜\s*parameter\s*>\s*(?=<｜DSML｜\s*parameter|</｜DSML｜\s*invoke)")


class DeepSeekDsmlParser(ToolParser):
    starts = (_TAG, _END_TAG)
    closers = ("invoke>", "/>")

    def read(self, text: str, final: bool) -> Found:
        tag_end = text.find(">")
        if tag_end < 0:
            raise Incomplete
        if section := _SECTION.match(text):
            return Found(section.end(), ())
        invoke = _INVOKE.match(text)
        if invoke is None:
            raise NotACall
        arguments: dict[str, Any] = {}
        if invoke[2]:
            return Found(invoke.end(), (ToolCall(invoke[1], "{}"),))
        position = invoke.end()
        while (end := _INVOKE_END.match(text, position)) is None:
            key, value, position = _parameter(text, position)
            arguments[key] = value
        return Found(end.end(), (ToolCall(invoke[1], to_json(arguments)),))


def _parameter(text: str, position: int) -> tuple[str, Any, int]:
    """Key, value and the position after them."""
    begin = _PARAMETER.match(text, position)
    if begin is None:
        raise NotACall if _is_no_tag(text[position:]) else Incomplete
    end = _PARAMETER_END.search(text, begin.end())
    if end is None:
        raise Incomplete
    value = text[begin.end() : end.start()]
    return begin[1], json_value(value) if begin[2] == "false" else value, end.end()


def _is_no_tag(text: str) -> bool:
    """Whether ``text`` can become neither a parameter nor the end of the call."""
    return ">" in text or not any(text.startswith(tag[: len(text)]) for tag in (_TAG, _END_TAG))
