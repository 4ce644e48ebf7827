"""The tools of a request: what a client may say about them, and what of it the template sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.api.errors import SchemaError, unsupported
from backend.api.parsers.choice import ParserChoice
from backend.frontend.errors import RequestError

ToolChoice = str | dict[str, Any]


def offered_tools(
    tools: Sequence[Mapping[str, Any]], choice: ToolChoice, parsers: ParserChoice
) -> list[dict[str, Any]]:
    """The tools that the model is to see: all of them, or none with ``tool_choice: none``.

    Raises :class:`RequestError` for tools of a wrong form, and for a choice that does not fit them.
    """
    if choice == "none" or (choice == "auto" and not tools):
        return []
    for position, tool in enumerate(tools):
        _check(tool, f"tools.{position}")
    if choice == "required" or isinstance(choice, Mapping):
        if not tools:
            raise SchemaError("tool_choice asks for a call, but there are no tools", param="tool_choice")
        demanded_tools(tools, choice)
        return [dict(tool) for tool in tools]
    if choice != "auto":
        message = f"tool_choice must be auto, none, required or a function, got {choice!r}"
        raise SchemaError(message, param="tool_choice")
    if parsers.tool_call is None:
        raise RequestError(
            "tools: the format of this model's tool calls is not known; if it has one, start the server with "
            "--tool-call-parser NAME.",
            param="tools",
        )
    return [dict(tool) for tool in tools]


def demanded_tools(tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> list[Mapping[str, Any]]:
    """The tools of which one has to be called; none when the model may answer without.

    Raises :class:`SchemaError` for a choice that names no tool.
    """
    if choice == "required":
        return list(tools)
    if not isinstance(choice, Mapping):
        return []
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    named = [tool for tool in tools if tool["function"]["name"] == name]
    if not named:
        raise SchemaError(f"tool_choice names no tool of the request, got {name!r}", param="tool_choice")
    return named


def _check(tool: Mapping[str, Any], where: str) -> None:
    if tool.get("type", "function") != "function":
        raise unsupported(f"{where}.type", tool.get("type"))
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise SchemaError(f"{where}.function must be an object, got {function!r}", param=f"{where}.function")
    if not isinstance(function.get("name"), str) or not function["name"]:
        name = function.get("name")
        raise SchemaError(f"{where}.function.name must be a name, got {name!r}", param=f"{where}.function.name")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        param = f"{where}.function.parameters"
        raise SchemaError(f"{param} must be a JSON schema, got {parameters!r}", param=param)
