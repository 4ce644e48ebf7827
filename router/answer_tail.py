"""What an answer says of its own prompt: in its head, else in its last bytes."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from router.http.message import Pairs

CACHED_HEADER = b"x-warmlane-cached-tokens"
TAIL_BYTES = 4096
_FIRST = b'_tokens"'
_LONGEST = 16  # bytes of a name before that
_COUNT = re.compile(rb'"(cached|completion|output|prompt|input)_tokens"\s*:\s*(\d{1,9})')


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
        first = end.find(_FIRST)
        if first < 0:
            return _SILENT
        counts = _COUNT.findall(end, max(0, first - _LONGEST))
        told = {name: int(digits) for name, digits in counts}.get
        return Usage(told(b"prompt", told(b"input")), told(b"completion", told(b"output")), told(b"cached"))
