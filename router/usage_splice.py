"""``--request-usage``: ask streams for their usage on the client's behalf, and take the extra event out again.

Streams of the OpenAI routes tell their cached tokens only when asked (``stream_options.include_usage``). The field is
spliced into the original bytes behind the opening brace, and only when the body has no ``stream_options`` of its own.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

ROUTES = frozenset({"/v1/chat/completions", "/v1/completions"})
FIELD = b'"stream_options":{"include_usage":true},'
HELD_BYTES = 1 << 20  # of an event without an end; more is passed on as it is
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')


class _Options(msgspec.Struct):
    stream: Any = None
    stream_options: Any = msgspec.UNSET


_DECODER = msgspec.json.Decoder(_Options)


def spliced(path: str, body: bytes) -> bytes | None:
    """``body`` with the field in it; None when it must go as it is."""
    if path not in ROUTES:
        return None
    try:
        options = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if options.stream is not True or options.stream_options is not msgspec.UNSET:
        return None
    brace = body.index(b"{") + 1
    return body[:brace] + FIELD + body[brace:]


class UsageFilter:
    """Takes the usage event out of an event stream. Everything else leaves byte for byte, each event when it is whole.

    The event is the one without choices and with usage, which engines send last before ``[DONE]``.
    """

    def __init__(self) -> None:
        self._held = b""
        self.removed = 0

    def feed(self, chunk: bytes) -> bytes:
        """What may go on to the client now; possibly nothing."""
        data = self._held + chunk
        end = _last_end(data)
        whole, self._held = data[:end], data[end:]
        if len(self._held) > HELD_BYTES:
            whole, self._held = data, b""
        return self._without_usage(whole) if b'"usage"' in whole else whole

    def rest(self) -> bytes:
        """What is left at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _without_usage(self, events: bytes) -> bytes:
        kept, start = [], 0
        for match in _EVENT_END.finditer(events):
            event = events[start : match.end()]
            start = match.end()
            if _NO_CHOICES.search(event) and _USAGE.search(event):
                self.removed += 1
            else:
                kept.append(event)
        kept.append(events[start:])
        return b"".join(kept)


def _last_end(data: bytes) -> int:
    """Where the last whole event ends; 0 when there is none."""
    return max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in (b"\n\n", b"\r\n\r\n", b"\r\r"))
