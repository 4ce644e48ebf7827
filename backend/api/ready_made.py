"""Events of a stream that are alike but for one text: encoded once, with a gap for the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_GAP = "\x00gap\x00"


class ReadyMade:
    """``build`` makes the event of answer ``index`` that says ``text``, behind what a client named; :meth:`frame` gives
    the same bytes faster.
    """

    def __init__(self, build: Callable[[int, str], dict[str, Any]]) -> None:
        self._build = build
        self._parts: dict[int, tuple[bytes, bytes]] = {}

    def frame(self, index: int, text: str) -> bytes:
        """The whole server-sent event."""
        parts = self._parts.get(index)
        if parts is None:
            before, _, after = _encode(self._build(index, _GAP)).rpartition(_encode(_GAP))
            parts = self._parts[index] = b"data: " + before, after + b"\n\n"
        return parts[0] + _encode(text) + parts[1]
