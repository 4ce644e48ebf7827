"""What an answer says of its own prompt: in its head, else in its last bytes."""

from __future__ import annotations

import re
from collections import deque

from router.http.message import Pairs

CACHED_HEADER = b"x-warmlane-cached-tokens"
TAIL_BYTES = 4096
_CACHED = (b'"cached_tokens"',)
_OUTPUT = (b'"completion_tokens"', b'"output_tokens"')
_PROMPT = (b'"prompt_tokens"', b'"input_tokens"')
_NUMBER = re.compile(rb"\s*:\s*(\d{1,9})")


def cached_at_head(pairs: Pairs) -> int | None:
    """The cached tokens that the head of an answer states, as our own backend's does."""
    for name, value in pairs:
        if len(name) == len(CACHED_HEADER) and name.lower() == CACHED_HEADER:
            return int(value) if value.isdigit() and len(value) < 10 else None
    return None


class Tail:
    """The last bytes of an answer, kept without copying the rest: usage stands at the end in every dialect.

    A client's text cannot pass for it: quotes inside JSON strings are escaped.
    """

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque(maxlen=4)
        self._bytes: bytes | None = None
        self.add = self._chunks.append

    def cached_tokens(self) -> int | None:
        return self._last(_CACHED)

    def prompt_tokens(self) -> int | None:
        return self._last(_PROMPT)

    def output_tokens(self) -> int | None:
        return self._last(_OUTPUT)

    def _last(self, names: tuple[bytes, ...]) -> int | None:
        """The number behind the last of ``names``."""
        if self._bytes is None:
            self._bytes = b"".join(self._chunks)[-TAIL_BYTES:]
        at, end = -1, 0
        for name in names:
            found = self._bytes.rfind(name)
            if found > at:
                at, end = found, found + len(name)
        number = _NUMBER.match(self._bytes, end) if at >= 0 else None
        return int(number[1]) if number else None
