"""``/parse_function_call`` and ``/separate_reasoning``: the server's parsers for text that came from elsewhere."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from backend.api.context import CONTEXT
from backend.api.errors import SchemaError, json_response
from backend.api.parsers import REASONING_PARSERS, TOOL_PARSERS, Parsed, make_parser
from backend.api.parsers.events import join
from backend.api.schema import Body, parse_json


class ParseCallRequest(Body):
    text: str
    tools: list[dict[str, Any]] = []
    tool_call_parser: str | None = None


class SeparateReasoningRequest(Body):
    text: str
    reasoning_parser: str | None = None


async def parse_function_call(request: web.Request) -> web.Response:
    """``parameters`` of a call is the text of a JSON object; ``tool_index`` counts the tools as they were given."""
    served = request.app[CONTEXT].serving().parsers.tool_call
    body = ParseCallRequest.read(parse_json(await request.read()))
    name = _chosen("tool_call_parser", body.tool_call_parser, served, TOOL_PARSERS)
    parsed = _parse(None, name, body.text, body.tools)
    names = [_name(tool) for tool in body.tools]
    calls = [
        {
            "tool_index": names.index(call.name) if call.name in names else -1,
            "name": call.name,
            "parameters": call.arguments,
        }
        for call in parsed.calls
    ]
    return json_response({"normal_text": parsed.content, "calls": calls})


async def separate_reasoning(request: web.Request) -> web.Response:
    served = request.app[CONTEXT].serving().parsers.reasoning
    body = SeparateReasoningRequest.read(parse_json(await request.read()))
    name = _chosen("reasoning_parser", body.reasoning_parser, served, REASONING_PARSERS)
    parsed = _parse(name, None, body.text, [])
    return json_response({"reasoning_text": parsed.reasoning, "text": parsed.content})


def _parse(reasoning: str | None, tool_call: str | None, text: str, tools: list[dict[str, Any]]) -> Parsed:
    parser = make_parser(reasoning, tool_call, tools=tools)
    return join([parser.push(text), parser.finish()])


def _name(tool: dict[str, Any]) -> Any:
    function = tool.get("function", tool)
    return function.get("name") if isinstance(function, dict) else None


def _chosen(field: str, asked: str | None, served: str | None, known: tuple[str, ...]) -> str:
    """The parser that the request names, else the one that the server uses."""
    name = asked or served
    if name is None:
        raise SchemaError(
            f"{field} is missing, and this server's model has none; known are {', '.join(known)}", param=field
        )
    if name not in known:
        raise SchemaError(f"{field} must be one of {', '.join(known)}, got {name!r}", param=field)
    return name
