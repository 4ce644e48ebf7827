"""The conversation of a request as bytes that grow at the end only, so that equal beginnings mean equal prefixes.

Used when the router has no chat template of its own. The separators are bytes that no UTF-8 has, so that they cannot
occur in texts: different roles, tools or message borders never look equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import xxhash

_TOOLS, _ROLE, _CONTENT, _EXTRA, _PART, _VARIABLES = b"\xf8", b"\xf9", b"\xfa", b"\xfb", b"\xfc", b"\xfd"
CONTINUES = b"\xc0"  # ends a conversation whose last message the model goes on with
_LONG = 1024  # characters of data (an image as data URL): beyond this only its hash counts
_SORTED = msgspec.json.Encoder(order="sorted")

Join = Callable[[Sequence[bytes]], bytes]  # parts of a text, in a row


def conversation_bytes(
    messages: Sequence[Any],
    tools: Any = None,
    variables: Mapping[str, Any] | None = None,
    continues: bool = False,
    join: Join = b"".join,
) -> bytes:
    """``messages`` in the OpenAI shape; ``tools`` as in the request, None or empty when there are none.

    ``variables`` go to the chat template, which may write them anywhere: they come first. Texts of messages are parts
    of their own for ``join``.
    """
    parts = [_VARIABLES + _SORTED.encode(variables)] if variables else []
    parts += [_TOOLS + _SORTED.encode(tools)] if tools else []
    for message in messages:
        if isinstance(message, dict):
            _add_message(parts, message)
        elif isinstance(message, str):
            parts += (_CONTENT, _text(message))
        else:
            parts.append(_opaque(message))
    if continues:
        parts.append(CONTINUES)
    return join(parts)


def is_stand_in(text: bytes) -> bool:
    """Was ``text`` made here, and not by a chat template?"""
    return text[:1] in (_VARIABLES, _TOOLS, _ROLE, _CONTENT, _EXTRA)


def _add_message(parts: list[bytes], message: Mapping[str, Any]) -> None:
    """In pieces: a long one is copied once, when all are joined."""
    parts += (_ROLE, _text(message.get("role")), _CONTENT)
    _add_content(parts, message.get("content"))
    if len(message) > 2 or "role" not in message or "content" not in message:
        extra = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
        if extra:
            parts += (_EXTRA, _SORTED.encode(extra))


def _add_content(parts: list[bytes], content: Any) -> None:
    """One text part is the same as a plain string: templates render them alike."""
    if not isinstance(content, list):
        parts.append(_text(content))
        return
    for index, part in enumerate(content):
        if index:
            parts.append(_PART)
        parts.append(_text(part["text"]) if _is_text(part) else _opaque(part))


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("text", "input_text", "output_text") and "text" in part


def _text(value: Any) -> bytes:
    if value is None:
        return b""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else _opaque(value)


def _opaque(value: Any) -> bytes:
    encoded = _SORTED.encode(value)
    return _EXTRA + (encoded if len(encoded) <= _LONG else _SORTED.encode(_without_data(value)))


def _without_data(value: Any) -> Any:
    """Texts stay (what a tool answered): they are tokens, and others may begin alike."""
    if isinstance(value, dict):
        return {key: _without_data(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_data(item) for item in value]
    return xxhash.xxh3_128_hexdigest(value.encode("utf-8", "surrogatepass")) if _is_data(value) else value


def _is_data(value: Any) -> bool:
    """Long, and a data URL or base64."""
    if not isinstance(value, str) or len(value) <= _LONG:
        return False
    head = value[:_LONG]
    return head.startswith("data:") or (head.isascii() and not any(space in head for space in " \n\t"))
