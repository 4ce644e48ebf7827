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
    def of(cls, data: bytes, length: int) -> Repeated | None:
        """``data`` was read as one whole message with a body of ``length`` bytes; None when its head tells no length.

        The head ends for certain where the first empty line leaves as many bytes as the body has.
        """
        end = data.find(_END) + len(_END)
        if len(data) - end != length:
            return None
        told = _LENGTH.search(data, 0, end)
        if told is None or int(told[1]) != length:
            return None
        return cls(data[: told.start(1)], data[told.end(1) : end])

    def body(self, data: bytes) -> bytes | None:
        """The body, if ``data`` is one whole message with this head."""
        if not data.startswith(self._before):
            return None
        stop = data.find(b"\r", self._behind)
        digits = data[self._behind : stop]
        if not digits.isdigit() or len(digits) > 9 or not data.startswith(self._after, stop):
            return None
        start = stop + len(self._after)
        return data[start:] if len(data) - start == int(digits) else None
