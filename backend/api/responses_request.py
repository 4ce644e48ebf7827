"""A request of OpenAI's responses API translated into a chat request. Nothing is kept between requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field

from backend.api.constraints import openai_constraint
from backend.api.errors import SchemaError, unsupported
from backend.api.openai import DEFAULT_MODEL
from backend.api.schema import NOT_YET, Harmless, RequestFields, refuse_not_yet
from backend.api.tools import check_tool_name
from backend.frontend.errors import RequestError
from backend.grammar import GrammarSpec

RESPONSES_NOT_YET: Harmless = {
    **NOT_YET,
    "background": (False,),
    "prompt": (),
    "top_logprobs": (0,),
    "max_tool_calls": (),
}
CHAT_TO_RESPONSES = {  # names of fields in errors
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "json_schema": "text.format",
}
_TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "refusal")


class ResponsesRequest(RequestFields):
    model: str = DEFAULT_MODEL
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    reasoning: dict[str, Any] = {}
    text: dict[str, Any] = {}
    truncation: str = "disabled"
    metadata: dict[str, Any] = {}
    user: str | None = None
    chat_template_kwargs: dict[str, Any] = {}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Raises :class:`RequestError`."""
        for field in ("previous_response_id", "conversation"):
            if data.get(field) is not None:
                raise RequestError(
                    f"{field}: no response is stored here, so none can be continued; leave it out, and send the whole "
                    "conversation as input.",
                    param=field,
                )
        refuse_not_yet(data, RESPONSES_NOT_YET)
        body = cls.read(data)
        if not body.input:
            raise SchemaError("input: it is empty, give a text or at least one item", param="input")
        return body

    def to_chat(self) -> dict[str, Any]:
        """The body of the chat request that asks the same."""
        optional = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_output_tokens,
            "reasoning_effort": self.reasoning.get("effort"),
        }
        return {
            "model": self.model,
            "messages": self._messages(),
            "stream": self.stream,
            "tools": [_tool(tool, position) for position, tool in enumerate(self.tools)],
            "tool_choice": _tool_choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "chat_template_kwargs": self.chat_template_kwargs,
            "priority": self.priority,
            "extra_key": self.extra_key,
            "cache_salt": self.cache_salt,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def constraint(self) -> GrammarSpec | None:
        """What ``text.format`` asks for. Raises :class:`SchemaError`."""
        form = self.text.get("format")
        if form is None:
            return None
        if not isinstance(form, Mapping):
            raise SchemaError(f"text.format must be an object, got {form!r}", param="text.format")
        nested = {"json_schema": {"schema": form.get("schema")}} if form.get("type") == "json_schema" else {}
        try:
            return openai_constraint({"response_format": {**form, **nested}})
        except SchemaError as error:
            raise error.renamed({"response_format": "text.format"}) from None

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        for position, item in enumerate(self.input):
            _add_item(messages, item, f"input.{position}")
        return messages


def _add_item(messages: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    """Append an item. Reasoning and calls that follow one another belong to one turn of the assistant."""
    kind = item.get("type", "message")
    if kind == "message":
        _add_message(messages, item, where)
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        _turn(messages).setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        output = _text(item.get("output"), f"{where}.output")
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
    elif kind == "reasoning":
        text = _text(item.get("content") or [], f"{where}.content")
        if text:
            messages.append({"role": "assistant", "content": "", "reasoning_content": text})
    else:
        raise unsupported(f"{where}.type", kind)


def _add_message(messages: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        message = f"{where}.role must be user, assistant, system or developer, got {role!r}"
        raise SchemaError(message, param=f"{where}.role")
    text = _text(item.get("content"), f"{where}.content")
    if role == "assistant" and messages and _is_open(messages[-1]):
        messages[-1]["content"] = text
    else:
        messages.append({"role": "system" if role == "developer" else role, "content": text})


def _turn(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's turn at the end, begun if there is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _is_open(message: Mapping[str, Any]) -> bool:
    """Whether a turn has reasoning only, so far."""
    return message["role"] == "assistant" and not message["content"] and "tool_calls" not in message


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise SchemaError(f"{where} must be a text or a list of parts, got {content!r}", param=where)
    for position, part in enumerate(content):
        if not isinstance(part, Mapping) or part.get("type") not in _TEXT_PARTS:
            kind = part.get("type") if isinstance(part, Mapping) else part
            raise unsupported(f"{where}.{position}.type", kind)
    return "\n".join(str(part.get("refusal" if part["type"] == "refusal" else "text", "")) for part in content)


def _tool(tool: Mapping[str, Any], position: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise unsupported(f"tools.{position}.type", tool.get("type"))
    check_tool_name(tool.get("name"), f"tools.{position}.name")
    function = {name: tool[name] for name in ("name", "description", "parameters", "strict") if name in tool}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return {"type": "allowed_tools", "allowed_tools": {**choice, "tools": _named(choice.get("tools"))}}
    return choice


def _named(tools: Any) -> Any:
    """Tools by their names, as the chat API has them."""
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        return tools
    return [{"type": "function", "function": {"name": tool.get("name")}} for tool in tools]
