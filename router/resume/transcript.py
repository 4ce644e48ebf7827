"""What went by of a stream, and how another backend's answer is fitted to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from router.resume.events import DONE, payload
from router.resume.plan import Dialect, Plan


class Transcript(ABC):
    """The text that the client has, and its length in tokens.

    ``finished``: the last token was sent, only closing words are missing. ``done``: nothing is missing.
    ``spoiled``: why it cannot be continued after all.
    """

    def __init__(self, plan: Plan) -> None:
        self._fields = plan.fields
        self.text = ""
        self.finished = False
        self.done = False
        self.spoiled = ""
        self._sent: int | None = None  # tokens, as the backend said
        self._before = 0  # tokens that the backends before the one under way sent
        self._resumed = False
        self._full = False  # all tokens were sent, only the end is missing: another backend makes one that is dropped

    def relay(self, event: bytes) -> bytes:
        """Note an event. Returns what the client gets: the same bytes, until the stream was taken up elsewhere."""
        data = payload(event)
        if data == b"[DONE]":
            self.done = True
            return event
        if not data:
            return event
        try:
            fields = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.spoiled = "an event is not a JSON object"
            return event
        try:
            if not self._resumed:
                self._note(fields)
                return event
            fitted = self._fit(fields)
        except (AttributeError, TypeError, ValueError):  # the client may well understand it
            self.spoiled = "an event has another shape than is known"
            return event
        return b"" if fitted is None else b"data: " + msgspec.json.encode(fitted) + b"\n\n"

    @property
    def needs_tokens(self) -> bool:
        """Has the text to be tokenised before the stream can be continued?"""
        return bool(self.text) and self._sent is None

    def resume(self, tokens: list[int] | None) -> bytes | None:
        """The body that continues the stream; None: it cannot be. ``tokens``: the text's, if it was tokenised."""
        sent = self._sent if self._sent is not None else len(tokens or ())
        if self.spoiled or self.finished or (self.needs_tokens and tokens is None):
            return None
        body = self._continuation(sent, tokens)
        if body is None:
            return None
        self._resumed = True
        self._before = sent
        self._sent = None if tokens is not None else sent
        self._resuming(sent)
        return msgspec.json.encode(body)

    def closing(self) -> bytes:
        """The end of a stream of which only closing words are missing."""
        return b"" if self.done else DONE

    def _resuming(self, sent: int) -> None:  # noqa: B027
        """Another backend goes on after ``sent`` tokens."""

    @abstractmethod
    def _note(self, fields: dict[str, Any]) -> None:
        """Remember what an event says."""

    @abstractmethod
    def _fit(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """An event of the backend that took over, as the first one would have said it; None: it is dropped."""

    @abstractmethod
    def _continuation(self, sent: int, tokens: list[int] | None) -> dict[str, Any] | None:
        """The request that makes a backend go on after ``sent`` tokens."""


def make_transcript(plan: Plan) -> Transcript:
    """An empty transcript in the request's dialect."""
    from router.resume.generate import GenerateTranscript
    from router.resume.openai import ChatTranscript, CompletionsTranscript

    kinds: dict[Dialect, type[Transcript]] = {
        Dialect.CHAT: ChatTranscript,
        Dialect.COMPLETIONS: CompletionsTranscript,
        Dialect.GENERATE: GenerateTranscript,
    }
    return kinds[plan.dialect](plan)
