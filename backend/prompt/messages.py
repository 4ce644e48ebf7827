"""Messages before any template sees them: nulls dropped, reasoning under every name, newer words as older ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.prompt.errors import TemplateError

Message = Mapping[str, Any]

# Names under which clients send a message's reasoning. Templates read the first; gpt-oss's reads the second.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


def drop_nulls(messages: Sequence[Message]) -> list[dict[str, Any]]:
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


def older_words(chat: list[dict[str, Any]], knows_developer: bool) -> list[dict[str, Any]]:
    """What templates were written for: refusals are text, ``developer`` is ``system`` if it is unknown."""
    return [_older(message, knows_developer) for message in chat]


def _older(message: dict[str, Any], knows_developer: bool) -> dict[str, Any]:
    content = message.get("content")
    if message.get("role") == "developer" and not knows_developer:
        message = {**message, "role": "system"}
    if content is None and isinstance(message.get("refusal"), str):
        message = {**message, "content": message["refusal"]}
    if isinstance(content, list) and any(isinstance(part, Mapping) and "refusal" in part for part in content):
        message = {**message, "content": [_as_text(part) for part in content]}
    return message


def _as_text(part: Any) -> Any:
    if isinstance(part, Mapping) and part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    return part
