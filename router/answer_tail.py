"""What an answer says of its own prompt: in its head, else in its last bytes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping

CACHED_HEADER = "x-warmlane-cached-tokens"
TAIL_BYTES = 4096
_CACHED = re.compile(rb'"cached_tokens"\s*:\s*(\d{1,9})')
_OUTPUT = re.compile(rb'"(?:completion_tokens|output_tokens)"\s*:\s*(\d{1,9})')
_PROMPT = re.compile(rb'"(?:prompt_tokens|input_tokens)"\s*:\s*(\d{1,9})')


def cached_at_head(headers: Mapping[str, str]) -> int | None:
    """The cached tokens that the head of an answer states, as our own backend's does."""
    value = headers.get(CACHED_HEADER, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


class Tail:
    """The last bytes of an answer, kept without copying the rest: usage stands at the end in every dialect.

    A client's text cannot pass for it: quotes inside JSON strings are escaped.
    """

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque(maxlen=4)

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def cached_tokens(self) -> int | None:
        return self._last(_CACHED)

    def prompt_tokens(self) -> int | None:
        return self._last(_PROMPT)

    def output_tokens(self) -> int | None:
        return self._last(_OUTPUT)

    def _last(self, pattern: re.Pattern[bytes]) -> int | None:
        found = pattern.findall(b"".join(self._chunks)[-TAIL_BYTES:])
        return int(found[-1]) if found else None
