"""Sends server-sent events straight to a connection, while the handler that began the answer sleeps on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from backend.api.event_style import EventStyle
from backend.frontend.request import RequestState

MOST_UNSENT = 1 << 16  # bytes that a slow client leaves with us; from there on the handler waits for it
BuildEvents = Callable[[list[RequestState]], Iterable[Any]]


class EventWriter:
    """The sink of one streamed answer: its head is out, and its body is sent in chunks (HTTP/1.1)."""

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
