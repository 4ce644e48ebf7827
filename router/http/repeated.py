"""Heads that come again on a connection, byte for byte but for their length: they need not be read again.

Programs send the same header lines with every request, and servers with every answer. What equals a message that the
parser has accepted, up to the digits of its Content-Length, gets the same verdict; the rest goes through the parser.
"""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"


class Repeated:
    """A head that was read, as the bytes around its length."""

    __slots__ = ("_after", "_before", "_behind")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._behind = len(before)

    @classmethod
    def of(cls, data: bytes, here: int, length: int) -> Repeated | None:
        """``data`` was read as a head and ``here`` bytes of its body of ``length``; None when the head tells no length.

        The head ends for certain where the first empty line leaves as many bytes as there are of the body.
        """
        end = data.find(_END) + len(_END)
        if len(data) - end != here:
            return None
        told = _LENGTH.search(data, 0, end)
        if told is None or int(told[1]) != length:
            return None
        return cls(data[: told.start(1)], data[told.end(1) : end])

    def split(self, data: bytes) -> tuple[int, int]:
        """(where its body begins, how long it says that is) if ``data`` begins with this head; else zeros."""
        if not data.startswith(self._before):
            return 0, 0
        stop = data.find(b"\r", self._behind, self._behind + 10)
        digits = data[self._behind : stop]
        if not digits.isdigit() or not data.startswith(self._after, stop):
            return 0, 0
        return stop + len(self._after), int(digits)

    def body(self, data: bytes) -> bytes | None:
        """The body, if ``data`` is one whole message with this head."""
        start, length = self.split(data)
        return data[start:] if start and len(data) - start == length else None
