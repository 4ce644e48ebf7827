"""Anthropic's request translated into a chat request: content blocks become messages of the chat template's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from backend.api.constraints import openai_constraint
from backend.api.errors import SchemaError, unsupported
from backend.api.openai import DEFAULT_MODEL
from backend.api.schema import NOT_YET, Harmless, RequestFields
from backend.api.tools import check_tool_name
from backend.grammar import GrammarSpec

MESSAGES_NOT_YET: Harmless = {**NOT_YET, "mcp_servers": (), "container": ()}
CHAT_TO_MESSAGES = {"stop": "stop_sequences", "json_schema": "output_config.format"}  # names of fields in errors
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
Content = str | list[dict[str, Any]]


class MessagesRequest(RequestFields):
    model: str = DEFAULT_MODEL
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    system: Content = ""
    stop_sequences: list[str] = []
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: dict[str, Any] = {"type": "auto"}
    thinking: dict[str, Any] = {}
    output_config: dict[str, Any] = {}
    output_format: dict[str, Any] = {}  # the same format by its older name
    chat_template_kwargs: dict[str, Any] = {}

    def to_chat(self) -> dict[str, Any]:
        """The body of the chat request that asks the same. A last turn of the assistant is gone on with."""
        messages = self.chat_messages()
        if not messages:
            raise SchemaError("messages: none of them says anything", param="messages")
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return {
            "model": self.model,
            "messages": messages,
            "continue_final_message": _is_begun(messages[-1]),
            "max_tokens": self.max_tokens,
            "stop": self.stop_sequences,
            "stream": self.stream,
            "tools": [_tool(tool, position) for position, tool in enumerate(self.tools)],
            "tool_choice": _tool_choice(self.tool_choice),
            "parallel_tool_calls": not self.tool_choice.get("disable_parallel_tool_use", False),
            "chat_template_kwargs": {**self._thinking_kwargs(), **self.chat_template_kwargs},
            "priority": self.priority,
            "extra_key": self.extra_key,
            "cache_salt": self.cache_salt,
            **{name: value for name, value in sampling.items() if value is not None},
        }

    def constraint(self) -> GrammarSpec | None:
        """What ``output_config.format`` asks for. Raises :class:`SchemaError`."""
        form = self.output_config.get("format") or self.output_format
        if not form:
            return None
        if _is_begun(self.chat_messages()[-1]):
            message = "output_config.format: an answer that the last message has begun cannot follow it; leave one out"
            raise SchemaError(message, param="output_config.format")
        schema = form.get("schema") if isinstance(form, Mapping) else None
        if not isinstance(form, Mapping) or form.get("type") != "json_schema" or not isinstance(schema, Mapping):
            raise SchemaError(f"output_config.format must be of type json_schema with a schema, got {form!r}")
        return openai_constraint({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})

    def chat_messages(self) -> list[dict[str, Any]]:
        system = _text(self.system, "system")
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        for position, message in enumerate(self.messages):
            messages += _messages(message, f"messages.{position}")
        return messages

    def _thinking_kwargs(self) -> dict[str, Any]:
        """Templates that can think or not read ``enable_thinking``."""
        kind = self.thinking.get("type")
        return {"enable_thinking": kind == "enabled"} if kind in ("enabled", "disabled") else {}


def _is_begun(message: Mapping[str, Any]) -> bool:
    """Whether a client wrote the beginning of the answer itself."""
    return message["role"] == "assistant" and bool(message["content"]) and "tool_calls" not in message


def _messages(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):  # some agents remind the model in the middle of a conversation
        raise SchemaError(f"{where}.role must be user, assistant or system, got {role!r}", param=f"{where}.role")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
        raise SchemaError(f"{where}.content must be a text or a list of blocks, got {content!r}", param=where)
    blocks: list[Mapping[str, Any]] = content
    if role == "system":
        return [{"role": role, "content": _text([dict(block) for block in blocks], f"{where}.content")}]
    return _assistant(blocks, where) if role == "assistant" else _user(blocks, where)


def _user(blocks: list[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    """Results of tools are messages of their own and come before what the user says."""
    results = [block for block in blocks if block.get("type") == "tool_result"]
    texts = [block for block in blocks if block.get("type") != "tool_result"]
    messages: list[dict[str, Any]] = [
        {
            "role": "tool",
            "tool_call_id": block.get("tool_use_id"),
            "content": _text(block.get("content") or "", f"{where}.content"),
        }
        for block in results
    ]
    if texts:
        messages.append({"role": "user", "content": _text([dict(block) for block in texts], f"{where}.content")})
    return messages


def _assistant(blocks: list[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"role": "assistant"}
    texts = [dict(block) for block in blocks if block.get("type") not in ("tool_use", "thinking", "redacted_thinking")]
    calls = [_tool_call(block) for block in blocks if block.get("type") == "tool_use"]
    thinking = "".join(str(block.get("thinking", "")) for block in blocks if block.get("type") == "thinking")
    message["content"] = _text(texts, f"{where}.content")
    if calls:
        message["tool_calls"] = calls
    if thinking:
        message["reasoning_content"] = thinking
    return [message]


def _tool_call(block: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    for position, block in enumerate(content):
        if not isinstance(block, Mapping) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            kind = block.get("type") if isinstance(block, Mapping) else block
            raise unsupported(f"{where}.{position}.type", kind)
    return "\n".join(block["text"] for block in content)


def _tool(tool: Mapping[str, Any], position: int) -> dict[str, Any]:
    if tool.get("type", "custom") != "custom":
        raise unsupported(f"tools.{position}.type", tool.get("type"))
    check_tool_name(tool.get("name"), f"tools.{position}.name")
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema") or {"type": "object"}}
    if tool.get("strict") is True:
        function["strict"] = True
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _tool_choice(choice: Mapping[str, Any]) -> str | dict[str, Any]:
    kind = choice.get("type", "auto")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if kind not in _CHOICES:
        raise SchemaError(f"tool_choice.type must be auto, any, tool or none, got {kind!r}", param="tool_choice")
    return _CHOICES[kind]
