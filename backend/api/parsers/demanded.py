"""Calls that the client demanded: the answer is a JSON list of names and parameters, whatever the model's format."""

from __future__ import annotations

from backend.api.parsers.calls import call_of
from backend.api.parsers.scanning import json_end, json_value
from backend.api.parsers.tool_parser import Found, ToolParser


class DemandedCallsParser(ToolParser):
    starts = ("{",)
    section = ("[", "]")
    closers = ("}",)

    def read(self, text: str, final: bool) -> Found:
        end = json_end(text, 0)
        return Found(end, (call_of(json_value(text[:end]), "parameters"),))
