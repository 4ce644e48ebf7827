"""Llama 4 and others: a Python list of calls, ``[f(a=1), g(b="x")]``, as the whole answer."""

from __future__ import annotations

import ast
import re

from backend.api.parsers.events import ToolCall
from backend.api.parsers.scanning import Incomplete, NotACall, to_json
from backend.api.parsers.tool_parser import Found, ToolParser

_TAG, _TAG_END = "<|python_start|>", "<|python_end|>"
_FIRST_CALL = re.compile(r"\[\s*[A-Za-z_][\w.\-]*\s*\(")
_FIRST_CALL_SO_FAR = re.compile(r"\[\s*(?:[A-Za-z_][\w.\-]*\s*)?")
# A Python string (perhaps without its end), or a bracket.
_STRUCTURE = re.compile(
    r"""(?P<quote>["'])(?:[^"'\\]|\\.|(?!(?P=quote))["'])*+(?P<end>(?P=quote))?|[\[\](){}]""", re.DOTALL
)
_NAMES = {"true": True, "false": False, "null": None}


class PythonicParser(ToolParser):
    starts = (_TAG, _TAG_END)
    closers = ("]", ")", ">")
    drops_fragments = False  # an answer may begin with a bracket

    def find_start(self, text: str, fresh: bool) -> tuple[int, bool]:
        begin = len(text) - len(text.lstrip())
        if fresh and text.startswith("[", begin):
            return begin, True
        return super().find_start(text, fresh)

    def read(self, text: str, final: bool) -> Found:
        for tag in (_TAG, _TAG_END):
            if text.startswith(tag):
                return Found(len(tag), ())
        if not _FIRST_CALL.match(text):
            raise Incomplete if _FIRST_CALL_SO_FAR.fullmatch(text) else NotACall
        end = _list_end(text)
        return Found(end, _calls(text[:end]))


def _list_end(text: str) -> int:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        if match["quote"]:
            if match["end"] is None:
                break
            continue
        depth += 1 if match[0] in "[({" else -1
        if depth == 0:
            return match.end()
    raise Incomplete


def _calls(source: str) -> tuple[ToolCall, ...]:
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotACall from None
    if not isinstance(tree, ast.List):
        raise NotACall
    return tuple(_call(element) for element in tree.elts)


def _call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
        raise NotACall
    try:
        arguments = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        return ToolCall(ast.unparse(node.func), to_json(arguments))
    except (ValueError, TypeError, RecursionError):
        raise NotACall from None


def _value(node: ast.expr) -> object:
    """A literal; JSON's spelling of its constants is forgiven."""
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _key(node: ast.expr | None) -> str:
    if not isinstance(node, ast.Constant):
        raise NotACall
    return str(node.value)
