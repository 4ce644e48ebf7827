"""Reasoning, answer and calls of one output: a reasoning splitter, then a tool-call parser, each if wanted."""

from __future__ import annotations

import secrets
from typing import Protocol

from backend.api.parsers.events import Parsed, join
from backend.api.parsers.reasoning import ReasoningSplitter
from backend.api.parsers.tool_parser import ToolParser


class AnswerParser(Protocol):
    """Reads one answer in pieces; concatenated pieces are the same however the text was cut."""

    def push(self, text: str) -> Parsed: ...

    def finish(self, truncated: bool = False) -> Parsed: ...

    def call_id(self) -> str: ...


class SplitAnswer:
    """Reasoning comes first, then the answer with its calls."""

    def __init__(self, reasoning: ReasoningSplitter | None, tools: ToolParser | None) -> None:
        self._reasoning = reasoning
        self._tools = tools

    def push(self, text: str) -> Parsed:
        reasoning, rest = self._reasoning.push(text) if self._reasoning else ("", text)
        if self._tools is None:
            return Parsed(reasoning, rest)
        return join([Parsed(reasoning), self._tools.push(rest)]) if rest else Parsed(reasoning)

    def finish(self, truncated: bool = False) -> Parsed:
        reasoning, rest = self._reasoning.finish() if self._reasoning else ("", "")
        if self._tools is None:
            return Parsed(reasoning, rest)
        return join([Parsed(reasoning), self._tools.push(rest), self._tools.finish(truncated)])

    def call_id(self) -> str:
        return self._tools.call_id() if self._tools else f"call_{secrets.token_hex(12)}"
