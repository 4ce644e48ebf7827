"""Long strings are cut out of a body before it is read as JSON.

A reader of JSON looks at each byte of a string, copies it into a text, and the text is copied again into UTF-8. But a
string without escapes is its own UTF-8 already: with a mark in its place little is left to be read, and all that has to
be known of its bytes is found at the speed of memory.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np

LONG = 65536  # bytes of a string from which on it pays: the JSON reader needs no code that is not at hand
_MARK = b"cut-%s-" % secrets.token_hex(8).encode()  # nobody can send it
_SIZE = len(_MARK) + 8


class LongStrings:
    """The long strings of a body, and the ``rest`` of it, with a mark for each of them.

    A mark is taken for its string only where it is the whole of a part; ``left`` says how many were not found so far.
    """

    __slots__ = ("_strings", "left", "rest")

    def __init__(self, rest: bytes, strings: Sequence[memoryview]) -> None:
        self.rest = rest
        self.left = len(strings)
        self._strings = strings

    def join(self, parts: Sequence[bytes]) -> bytes:
        """The parts in a row, and for each that is a mark its string."""
        whole: list[bytes | memoryview] = []
        for part in parts:
            if len(part) == _SIZE and part.startswith(_MARK):
                self.left -= 1
                whole.append(self._strings[int(part[len(_MARK) :])])
            else:
                whole.append(part)
        return b"".join(whole)


def cut_out(body: bytes) -> LongStrings | None:
    """None when ``body`` has no long string without escapes.

    What is cut out stands between two quotes, has none, and neither an escape nor anything else that ends a string or
    makes it a bad one. If it is no string after all, or the end of one, then the mark makes no JSON or is not the whole
    of its string.
    """
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    strings: list[memoryview] = []
    done, probe = 0, LONG
    while probe < len(body):  # every long string is where one of the probes is
        start, end = body.rfind(b'"', done, probe) + 1, body.find(b'"', probe)
        if start and end - start >= LONG and body.find(b"\\", start, end) < 0 and _is_text(view[start:end]):
            pieces += (view[done:start], b"%b%08d" % (_MARK, len(strings)))
            strings.append(view[start:end])
            done = end
        probe = max(probe, end) + LONG
    if not strings:
        return None
    pieces.append(view[done:])
    return LongStrings(b"".join(pieces), strings)


def _is_text(string: memoryview) -> bool:
    """Is it UTF-8 without control characters?"""
    if np.frombuffer(string, np.int8).min() >= 32:  # all others are negative there
        return True
    if np.frombuffer(string, np.uint8).min() < 32:
        return False
    try:
        str(string, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
