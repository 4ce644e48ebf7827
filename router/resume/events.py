"""Server-sent events in a stream of bytes."""

from __future__ import annotations

import re

_END = re.compile(rb"\r?\n\r?\n")
DONE = b"data: [DONE]\n\n"


class Events:
    """Cuts a stream into whole events. What is not whole stays here: half an event must not reach a client."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes, with the blank line that ends each."""
        data = self._rest + data
        begin, events = 0, []
        for end in _END.finditer(data):
            events.append(data[begin : end.end()])
            begin = end.end()
        self._rest = data[begin:]
        return events

    def close(self) -> bytes:
        """The stream ended properly: what follows the last event."""
        rest, self._rest = self._rest, b""
        return rest


def payload(event: bytes) -> bytes:
    """The data of an event; empty when it has none."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)
