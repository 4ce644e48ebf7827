"""What form of a message a template understands, found by trying it.

Clients speak OpenAI's form: content may be a list of parts or null, and a tool call's arguments are JSON text.
Templates were written against looser rules: some loop over parts, some add content to text; some read arguments as an
object, some paste them as text; for an assistant's turn without content some want the field absent, some null, some
empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from backend.prompt.errors import TemplateError

Chat = list[dict[str, Any]]
Render = Callable[[Chat], str]
EmptyContent = Literal["absent", "null", "empty"]

_EMPTY_CONTENTS: tuple[EmptyContent, ...] = ("absent", "null", "empty")
_TOOL, _VALUE, _FIRST, _SECOND = "probe_tool", "probe_value", "probe_first", "probe_second"
_CALL_ID = "probe0123"  # nine letters and digits: Mistral's templates refuse anything else


@dataclass(frozen=True, slots=True)
class Dialect:
    """A template's preferences: ``apply`` puts a conversation in the form it understands."""

    takes_parts: bool = False
    arguments_as_objects: bool = True
    empty_content: EmptyContent = "absent"

    def apply(self, chat: Chat) -> Chat:
        """A copy of ``chat`` in this form. Raises TemplateError for a content part that is not text."""
        return [self._apply(message) for message in chat]

    def _apply(self, message: dict[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        if isinstance(content, list) and not self.takes_parts:
            message = {**message, "content": "\n".join(_part_text(part) for part in content)}
        if not message.get("tool_calls"):
            return message
        message = {**message, "tool_calls": [self._tool_call(call) for call in message["tool_calls"]]}
        if content is None and self.empty_content != "absent":
            message["content"] = None if self.empty_content == "null" else ""
        return message

    def _tool_call(self, call: Any) -> Any:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or "arguments" not in function:
            return call
        convert = _as_object if self.arguments_as_objects else _as_text
        return {**call, "function": {**function, "arguments": convert(function["arguments"])}}


def probe_dialect(render: Render) -> Dialect:
    """Find the dialect of the template behind ``render``, which raises TemplateError for what it cannot take."""
    takes_parts = _renders_parts(render)
    choices = [Dialect(takes_parts, objects, empty) for objects, empty in product((True, False), _EMPTY_CONTENTS)]
    texts = [_attempt(render, choice.apply(_tool_conversation())) for choice in choices]
    for wanted in ((_TOOL, _VALUE), ()):
        for choice, text in zip(choices, texts, strict=True):
            if text is not None and all(word in text for word in wanted) and not _prints_null(render, text):
                return choice
    return choices[0]


def _renders_parts(render: Render) -> bool:
    parts = [{"type": "text", "text": _FIRST}, {"type": "text", "text": _SECOND}]
    text = _attempt(render, [{"role": "user", "content": parts}])
    joined = (_FIRST + separator + _SECOND for separator in ("", "\n", " ", "\n\n"))
    return text is not None and any(text == _attempt(render, [{"role": "user", "content": each}]) for each in joined)


def _tool_conversation() -> Chat:
    call = {
        "id": _CALL_ID,
        "type": "function",
        "function": {"name": _TOOL, "arguments": json.dumps({"key": _VALUE})},
    }
    return [
        {"role": "user", "content": _FIRST},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": _CALL_ID, "name": _TOOL, "content": _SECOND},
    ]


def _prints_null(render: Render, text: str) -> bool:
    """Whether a null found its way into ``text``: words for it that the template's own text does not hold."""
    plain = _attempt(render, [{"role": "user", "content": _FIRST}]) or ""
    return any(text.count(word) > plain.count(word) for word in ("None", "null"))


def _attempt(render: Render, chat: Chat) -> str | None:
    try:
        return render(chat)
    except TemplateError:
        return None


def _as_object(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments)
    except json.JSONDecodeError:
        return arguments  # a model's own words: they may be no JSON, and the template may still print them
    return parsed if isinstance(parsed, dict) else arguments


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise TemplateError(f"a content part of type {kind!r} is not supported by this model, only 'text'")
