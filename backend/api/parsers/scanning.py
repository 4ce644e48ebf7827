"""Small tools for reading text that may not be all there yet."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn


class NotACall(Exception):
    """The text that began like a call is none; more text will not change that."""


class Incomplete(Exception):
    """The text ends before it can be understood."""


# A string (perhaps without its end), or a bracket.
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+(?P<end>")?|[\[\]{}]', re.DOTALL)


def held_back(text: str, markers: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a marker."""
    longest = max((len(marker) for marker in markers), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(marker.startswith(tail) for marker in markers):
            return length
    return 0


def skip_space(text: str, position: int) -> int:
    """The first position from ``position`` on that holds no whitespace."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def expect(text: str, position: int, marker: str) -> int:
    """The position after ``marker``. Raises Incomplete where the text ends inside it, NotACall where it is another."""
    if text.startswith(marker, position):
        return position + len(marker)
    if marker.startswith(text[position:]):
        raise Incomplete
    raise NotACall


def find(text: str, marker: str, position: int) -> int:
    """Where ``marker`` next stands. Raises Incomplete."""
    found = text.find(marker, position)
    if found < 0:
        raise Incomplete
    return found


def json_end(text: str, start: int) -> int:
    """Where the JSON object or array that begins at ``start`` ends. Raises Incomplete, and NotACall for neither."""
    if start >= len(text):
        raise Incomplete
    if text[start] not in "{[":
        raise NotACall
    depth = 0
    for match in _STRUCTURE.finditer(text, start):
        character = match[0][0]
        if character == '"':
            if match["end"] is None:
                break
            continue
        depth += 1 if character in "{[" else -1
        if depth == 0:
            return match.end()
    raise Incomplete


def json_value(text: str) -> Any:
    """A JSON value as models write it (raw newlines inside strings are forgiven). Raises NotACall."""
    try:
        return json.loads(text, strict=False, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise NotACall from None


def object_text(text: str) -> str:
    """The text of a JSON object, as it was written where that is valid JSON. Raises NotACall for anything else."""
    value = json_value(text)
    if not isinstance(value, dict):
        raise NotACall
    try:
        json.loads(text)
    except ValueError:
        return to_json(value)
    return text.strip()


def to_json(value: Any) -> str:
    """JSON text that keeps every script readable."""
    return json.dumps(value, ensure_ascii=False)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
