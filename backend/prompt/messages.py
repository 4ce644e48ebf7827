"""Messages before any template sees them: nulls dropped, reasoning under every name it goes by."""

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
