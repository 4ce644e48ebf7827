"""The tools of a request: what a client may say about them, and what of it the template sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.api.errors import SchemaError, unsupported
from backend.api.parsers.choice import ParserChoice
from backend.frontend.errors import RequestError

ToolChoice = str | dict[str, Any]


def allowed_tools(tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> tuple[list[Mapping[str, Any]], ToolChoice]:
    """OpenAI's choice of type ``allowed_tools``: the tools that it names, and its mode. Raises :class:`SchemaError`."""
    if not isinstance(choice, Mapping) or choice.get("type") != "allowed_tools":
        return list(tools), choice
    allowed = choice.get("allowed_tools")
    mode, listed = (allowed.get("mode"), allowed.get("tools")) if isinstance(allowed, Mapping) else (None, None)
    if mode not in ("auto", "required") or not isinstance(listed, list):
        message = f"tool_choice.allowed_tools needs a mode, auto or required, and a list of tools, got {allowed!r}"
        raise SchemaError(message, param="tool_choice")
    wanted = [_name(tool) for tool in listed]
    known = [_name(tool) for tool in tools]
    if unknown := [name for name in wanted if name is None or name not in known]:
        raise SchemaError(f"tool_choice names no tool of the request, got {unknown[0]!r}", param="tool_choice")
    return [tool for name, tool in zip(known, tools, strict=True) if name in wanted], mode


def _name(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return function.get("name") if isinstance(function, Mapping) else None


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


def check_tool_name(name: Any, where: str) -> None:
    """Raise :class:`SchemaError` for what is no name of a tool; ``where`` is the client's field."""
    if not isinstance(name, str) or not name:
        raise SchemaError(f"{where} must be a name, got {name!r}", param=where)


def _check(tool: Mapping[str, Any], where: str) -> None:
    if tool.get("type", "function") != "function":
        raise unsupported(f"{where}.type", tool.get("type"))
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise SchemaError(f"{where}.function must be an object, got {function!r}", param=f"{where}.function")
    check_tool_name(function.get("name"), f"{where}.function.name")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        param = f"{where}.function.parameters"
        raise SchemaError(f"{param} must be a JSON schema, got {parameters!r}", param=param)
