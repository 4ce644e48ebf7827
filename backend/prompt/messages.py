"""Messages made ready for a template: what templates trip over is put in the form they expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.prompt.errors import TemplateError

Message = Mapping[str, Any]

# Names under which clients send a message's reasoning. Templates read the first; gpt-oss's reads the second.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_PART_SEPARATOR = "\n"


def normalise(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Copies without the fields that are null: templates test for a field's presence and would print ``None``."""
    for message in messages:
        if not isinstance(message, Mapping):
            raise TemplateError(f"a message must be an object with a role, got {message!r}")
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def share_reasoning(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give a message's reasoning the name that the template reads, whichever the client used."""
    shared = []
    for message in chat:
        reasoning = next((message[field] for field in REASONING_FIELDS if field in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        shared.append(message)
    return shared


def flatten_parts(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join each content that is a list of text parts into one text, for a template that knows only text."""
    return [
        {**message, "content": _PART_SEPARATOR.join(_part_text(part) for part in message["content"])}
        if isinstance(message.get("content"), list)
        else message
        for message in chat
    ]


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise TemplateError(f"a content part of type {kind!r} is not supported by this model, only 'text'")
