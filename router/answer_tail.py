"""What an answer says of its own prompt: in its head, else in its last bytes."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from router.http.message import Pairs

CACHED_HEADER = b"x-warmlane-cached-tokens"
TAIL_BYTES = 4096
_VALUE = re.compile(rb"\s*:\s*(\d{1,9})")


def cached_at_head(pairs: Pairs) -> int | None:
    """The cached tokens that the head of an answer states, as our own backend's does."""
    for name, value in pairs:
        if len(name) == len(CACHED_HEADER) and name.lower() == CACHED_HEADER:
            return int(value) if value.isdigit() and len(value) < 10 else None
    return None


class Usage(NamedTuple):
    """What an answer tells of its tokens; None where it does not."""

    prompt: int | None
    output: int | None
    cached: int | None


_SILENT = Usage(None, None, None)


class Tail:
    """The last bytes of an answer, kept without copying the rest: usage stands at the end in every dialect.

    A client's text cannot pass for it: quotes inside JSON strings are escaped.
    """

    __slots__ = ("_chunks", "add")

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque(maxlen=4)
        self.add = self._chunks.append

    def usage(self) -> Usage:
        """The last number of each kind."""
        end = b"".join(self._chunks)[-TAIL_BYTES:]
        if b'_tokens"' not in end:
            return _SILENT
        prompt, output = _last(end, b'"prompt_tokens"'), _last(end, b'"completion_tokens"')
        if output is None:
            output = _last(end, b'"output_tokens"')
        cached = _last(end, b'"cached_tokens"')
        if prompt is None and (prompt := _last(end, b'"input_tokens"')) is not None:
            # Anthropic's form counts them apart; a server that does not know says 0, which proves nothing.
            read = _last(end, b'"cache_read_input_tokens"') or 0
            prompt += read + (_last(end, b'"cache_creation_input_tokens"') or 0)
            cached = (read or None) if cached is None else cached
        return Usage(prompt, output, cached)


def _last(text: bytes, name: bytes) -> int | None:
    """The last number in ``text`` that has this ``name``."""
    at = text.rfind(name)
    while at >= 0:
        if (told := _VALUE.match(text, at + len(name))) is not None:
            return int(told[1])
        at = text.rfind(name, 0, at)
    return None
