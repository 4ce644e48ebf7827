"""Leaving the last message open, so that the model goes on with it.

The end of the message's text is marked before rendering and the rendered prompt is cut at the mark; what a template
writes after a message (end of turn, newline) goes away with it.
"""

from __future__ import annotations

from typing import Any

from backend.prompt.errors import TemplateError

# The trailing space tells whether the template trims the message, which then holds for the text before the mark too.
_MARK = "<<CONTINUE-FROM-HERE>> "


def mark_final_message(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy of ``chat`` with the mark after the last text of the last message."""
    last = chat[-1]
    content = last.get("content")
    if isinstance(content, str):
        marked: Any = content + _MARK
    elif isinstance(content, list):
        marked = _mark_last_text(content)
    else:
        raise TemplateError("continue_final_message needs a last message with text content to continue")
    return [*chat[:-1], {**last, "content": marked}]


def _mark_last_text(parts: list[Any]) -> list[Any]:
    for index in range(len(parts) - 1, -1, -1):
        part = parts[index]
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            return [*parts[:index], {**part, "text": part["text"] + _MARK}, *parts[index + 1 :]]
    raise TemplateError("continue_final_message needs a last message with text content to continue")


def cut_after_mark(text: str) -> str:
    """``text`` up to the mark; without trailing space where the template trimmed the message."""
    head, found, tail = text.rpartition(_MARK.strip())
    if not found:
        raise TemplateError("the chat template leaves out the last message, so it cannot be continued")
    return head if tail.startswith(" ") else head.rstrip()
