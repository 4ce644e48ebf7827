"""How server-sent events are written: as bare data that ends in ``[DONE]``, or each under its own name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from backend.api.errors import messages_body, responses_event, stream_error
from backend.frontend.errors import RequestError

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class EventStyle:
    """``error`` builds the event that ends a stream which has already begun."""

    error: Callable[[RequestError], dict[str, Any]]
    named: bool  # by the event's own "type"
    done: bytes = b""

    def frames(self, events: Iterable[Any]) -> bytes:
        """The bytes of some events; what is bytes already is an event in this style."""
        frames = [event if isinstance(event, bytes) else self._frame(event) for event in events]
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _frame(self, event: Any) -> bytes:
        return self._name(event) + b"data: " + _encode(event) + b"\n\n"

    def _name(self, event: Any) -> bytes:
        return b"event: " + event["type"].encode() + b"\n" if self.named else b""


DATA_EVENTS = EventStyle(stream_error, named=False, done=b"data: [DONE]\n\n")
MESSAGES_EVENTS = EventStyle(messages_body, named=True)
RESPONSES_EVENTS = EventStyle(responses_event, named=True)
