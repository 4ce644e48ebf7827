"""Calls that a model writes as JSON objects with a name and arguments."""

from __future__ import annotations

from typing import Any

from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import NotACall, json_value, to_json


def call_of(value: Any, *argument_names: str) -> ToolCall:
    """The call in ``{"name": ..., "arguments": {...}}``. Raises NotACall.

    ``argument_names`` are the keys under which arguments may stand, ``arguments`` when there are none.
    """
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise NotACall
    names = argument_names or ("arguments",)
    arguments: Any = next((value[name] for name in names if name in value), {})
    if isinstance(arguments, str):  # some models write the object as text
        arguments = json_value(arguments)
    if not isinstance(arguments, dict):
        raise NotACall
    return ToolCall(value["name"], to_json(arguments))
