"""Leaving the last message open, so that the model goes on with it.

The end of the message's text is marked before rendering and the rendered prompt is cut at the mark; what a template
writes after a message (end of turn, newline) goes away with it.
"""

from __future__ import annotations

from typing import Any

from backend.prompt.errors import TemplateError

# The trailing space tells whether the template trims the message, which then holds for the text before the mark too.
_MARK = "<<CONTINUE-FROM-HERE>> "


def mark_final_message(chat: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """A copy of ``chat`` with the mark after the last text of the last message, and that text."""
    last = chat[-1]
    content = last.get("content")
    if isinstance(content, str):
        return [*chat[:-1], {**last, "content": content + _MARK}], content
    parts: list[Any] = content if isinstance(content, list) else []
    for index, part in reversed(list(enumerate(parts))):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            parts = [*parts[:index], {**part, "text": part["text"] + _MARK}, *parts[index + 1 :]]
            return [*chat[:-1], {**last, "content": parts}], part["text"]
    raise TemplateError("continue_final_message needs a last message with text content to continue")


def cut_after_mark(prompt: str, final_text: str) -> str:
    """``prompt`` up to the mark; without trailing space where the template trimmed the message."""
    head, found, tail = prompt.rpartition(_MARK.strip())
    if not found or final_text.strip() not in head:
        raise TemplateError("the chat template changes or leaves out the last message, so it cannot be continued")
    return head if tail.startswith(" ") else head.rstrip()
