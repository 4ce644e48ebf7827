"""Sends server-sent events straight to a connection, while the handler that began the answer sleeps on.

What a token touches is kept small: of hundreds of streams nothing is left in the processor's caches when the next step
comes, and fetching it is most of a token's cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from backend.api.event_style import EventStyle
from backend.api.ready_made import Around
from backend.frontend.request import RequestState

MOST_UNSENT = 1 << 16  # bytes that a slow client leaves with us; from there on the handler waits for it
BuildEvents = Callable[[list[RequestState]], Iterable[Any]]
_encode = msgspec.json.Encoder().encode


class EventWriter:
    """The sink of one streamed answer: its head is out, and its body is sent in chunks (HTTP/1.1)."""

    __slots__ = ("_build", "_style", "_transport")

    def __init__(self, transport: asyncio.WriteTransport, build: BuildEvents, style: EventStyle) -> None:
        self._transport = transport
        self._build = build
        self._style = style

    def __call__(self, moved: list[RequestState]) -> bool:
        """Send what ``moved`` means as one chunk; false, and nothing is sent, when the client is slow or gone."""
        transport = self._transport
        if transport.is_closing() or transport.get_write_buffer_size() > MOST_UNSENT:
            return False
        if frames := self._style.frames(self._build(moved)):
            transport.write(b"%x\r\n%b\r\n" % (len(frames), frames))
        return True


class TextWriter:
    """The same for a call with one answer, whose further events are alike but for their text."""

    __slots__ = ("_after", "_before", "_length", "_transport")

    def __init__(self, transport: asyncio.WriteTransport, around: Around) -> None:
        self._transport = transport
        self._before, self._after = around
        self._length = len(self._before) + len(self._after)

    def __call__(self, moved: list[RequestState]) -> bool:
        transport = self._transport
        if transport.is_closing() or transport.get_write_buffer_size() > MOST_UNSENT:
            return False
        if text := moved[0].take():
            said = _encode(text)
            transport.write(b"%x\r\n%b%b%b\r\n" % (self._length + len(said), self._before, said, self._after))
        return True
