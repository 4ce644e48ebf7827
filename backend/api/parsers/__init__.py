"""What a model's output says: reasoning, answer and tool calls, one file for each format.

``make_parser`` gives the parser of one answer; push its text in pieces, then finish.
"""

from backend.api.parsers.answer import AnswerParser
from backend.api.parsers.choice import ParserChoice, choose_parsers
from backend.api.parsers.events import Parsed, ToolCall
from backend.api.parsers.registry import (
    REASONING_PARSERS,
    TOOL_PARSERS,
    make_parser,
    reasoning_parser_for,
    tool_parser_for,
)

__all__ = [
    "REASONING_PARSERS",
    "TOOL_PARSERS",
    "AnswerParser",
    "Parsed",
    "ParserChoice",
    "ToolCall",
    "choose_parsers",
    "make_parser",
    "reasoning_parser_for",
    "tool_parser_for",
]
