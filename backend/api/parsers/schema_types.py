"""Values of formats that write them as bare text: the tool's schema says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from backend.api.parsers.tool_parser import Tools


def parameter_schemas(tools: Tools, name: str) -> Mapping[str, Any]:
    """The schemas of a tool's parameters by name; empty for a tool that nobody offered."""
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and function.get("name") == name:
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
            return properties if isinstance(properties, Mapping) else {}
    return {}


def typed(text: str, schema: Any) -> Any:
    """``text`` as the value its schema wants: a string stays as it is, the rest is read as JSON where it is JSON.

    Without a schema JSON is taken for what it is, and other text is a string.
    """
    kinds = _kinds(schema)
    value, is_json = _from_json(text)
    if not is_json or (kinds and "string" in kinds and not _wanted(value, kinds - {"string"})):
        return _forgiven(text, kinds)
    return value


def _kinds(schema: Any) -> frozenset[str]:
    """The JSON types a schema allows; empty when it does not say."""
    if not isinstance(schema, Mapping):
        return frozenset()
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset([kind])
    if isinstance(kind, list):
        return frozenset(each for each in kind if isinstance(each, str))
    for branches in (schema.get("anyOf"), schema.get("oneOf")):
        if isinstance(branches, list):
            return frozenset().union(*map(_kinds, branches))
    choices = schema.get("enum")
    if isinstance(choices, list) and choices and all(isinstance(each, str) for each in choices):
        return frozenset(["string"])
    return frozenset()


def _wanted(value: Any, kinds: frozenset[str]) -> bool:
    names = {
        bool: {"boolean"},
        int: {"integer", "number"},
        float: {"number"},
        list: {"array"},
        dict: {"object"},
        type(None): {"null"},
        str: {"string"},
    }
    return bool(names.get(type(value), set()) & kinds)


def _from_json(text: str) -> tuple[Any, bool]:
    try:
        return json.loads(text), True
    except (ValueError, RecursionError):
        return None, False


def _forgiven(text: str, kinds: frozenset[str]) -> Any:
    """Python's spelling of what is no string."""
    if "string" not in kinds and text.strip() in ("True", "False"):
        return text.strip() == "True"
    if "string" not in kinds and text.strip() == "None":
        return None
    return text
