"""Gemma 4: ``<|tool_call>call:NAME{key:<|"|>text<|"|>,list:[1,2],flag:true}<tool_call|>``.

Like JSON, with bare keys (spaces included) and a token of its own around strings, which hold anything.
"""

from __future__ import annotations

import json
import re
from typing import Any

from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import Incomplete, NotACall, expect, find, skip_space, to_json
from backend.api.parsers.tool_parser import Found, ToolParser

_OPEN, _CLOSE, _CALL, _QUOTE = "<|tool_call>", "<tool_call|>", "call:", '<|"|>'
_NAME = re.compile(r"\s*([^\s{}<>]+)\s*(?=\{)")
_NAME_SO_FAR = re.compile(r"\s*[^\s{}<>]*\s*")
_BARE = re.compile(r"[^,{}\[\]<]*")
_DEEPEST = 200


class GemmaParser(ToolParser):
    starts = (_OPEN,)
    closers = (_CLOSE,)
    keeps_space = True

    def read(self, text: str, final: bool) -> Found:
        position = expect(text, skip_space(text, len(_OPEN)), _CALL)
        name = _NAME.match(text, position)
        if name is None:
            raise Incomplete if _NAME_SO_FAR.fullmatch(text, position) else NotACall
        arguments, position = _object(text, name.end(), 0)
        after = expect(text, skip_space(text, position), _CLOSE)
        return Found(after, (ToolCall(name[1], to_json(arguments)),))


def _value(text: str, position: int, depth: int) -> tuple[Any, int]:
    """The value at ``position`` and the position after it."""
    if depth > _DEEPEST:
        raise NotACall
    position = skip_space(text, position)
    if text.startswith(_QUOTE, position):
        begin = position + len(_QUOTE)
        end = find(text, _QUOTE, begin)
        return text[begin:end], end + len(_QUOTE)
    if text.startswith("{", position):
        return _object(text, position, depth)
    if text.startswith("[", position):
        return _list(text, position, depth)
    if _QUOTE.startswith(text[position:]):
        raise Incomplete
    return _bare(text, position)


def _object(text: str, position: int, depth: int) -> tuple[dict[str, Any], int]:
    value: dict[str, Any] = {}
    position = skip_space(text, position + 1)
    while not text.startswith("}", position):
        key, position = _key(text, position)
        value[key], position = _value(text, position, depth + 1)
        position = _separator(text, position, "}")
    return value, position + 1


def _list(text: str, position: int, depth: int) -> tuple[list[Any], int]:
    value: list[Any] = []
    position = skip_space(text, position + 1)
    while not text.startswith("]", position):
        element, position = _value(text, position, depth + 1)
        value.append(element)
        position = _separator(text, position, "]")
    return value, position + 1


def _key(text: str, position: int) -> tuple[str, int]:
    if text.startswith(_QUOTE, position):
        key, position = _value(text, position, 0)
        return key, expect(text, skip_space(text, position), ":")
    if _QUOTE.startswith(text[position:]):
        raise Incomplete
    colon = find(text, ":", position)
    key = text[position:colon].strip()
    if not key or any(mark in key for mark in "{}[]<>,"):
        raise NotACall
    return key, colon + 1


def _separator(text: str, position: int, closer: str) -> int:
    """Past a comma, or at the closing bracket."""
    position = skip_space(text, position)
    if position == len(text):
        raise Incomplete
    if text[position] == ",":
        return skip_space(text, position + 1)
    if text[position] != closer:
        raise NotACall
    return position


def _bare(text: str, position: int) -> tuple[Any, int]:
    """A number, true, false, null, or a string that the model forgot to quote."""
    match = _BARE.match(text, position)
    if match is None or match.end() == len(text):
        raise Incomplete
    word = match[0].strip()
    if not word:
        raise NotACall
    try:
        return json.loads(word), match.end()
    except ValueError:
        return word, match.end()
