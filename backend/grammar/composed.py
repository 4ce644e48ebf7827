"""Grammars that the server itself writes around what a client asked for, such as a model's form of tool calls.

They are Lark in llguidance's dialect. A string literal may hold control tokens of the vocabulary: they are put in as
tokens, since their letters would be other ones. ``@name`` stands for a part that is a grammar of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from backend.grammar.errors import GrammarError
from backend.grammar.spec import GrammarSpec, make_spec

_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
_LAZY = "[lazy]"


def compose(lark: str, parts: Mapping[str, GrammarSpec]) -> GrammarSpec:
    """The grammar ``lark`` (start rule ``start``), in which ``@name`` means the part of that name."""
    return make_spec(
        "composed", {"lark": lark, "parts": {name: [part.kind, part.text] for name, part in parts.items()}}
    )


def literal(text: str) -> str:
    """``text`` as a string of Lark."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one that llguidance wants escaped


def composed_grammar(text: str, control_tokens: Mapping[str, int], translate: Callable[[GrammarSpec], str]) -> str:
    """What :func:`compose` wrote, for a vocabulary with ``control_tokens`` (their ids). Raises GrammarError."""
    form = json.loads(text)
    main = {"name": "whole", "lark_grammar": _with_tokens(form["lark"], control_tokens)}
    parts = [_part(name, translate(GrammarSpec(*part))) for name, part in form["parts"].items()]
    return json.dumps({"grammars": [main, *parts]})


def _part(name: str, grammar: str) -> dict[str, Any]:
    if not grammar.lstrip().startswith("{"):
        return {"name": name, "lark_grammar": grammar}
    grammars = json.loads(grammar)["grammars"]
    if len(grammars) != 1:
        raise GrammarError(f"{name} consists of {len(grammars)} grammars and cannot be a part of another one")
    return {**grammars[0], "name": name}


def _with_tokens(lark: str, control_tokens: Mapping[str, int]) -> str:
    """``lark`` with the control tokens in its literals as tokens."""
    if not control_tokens:
        return lark
    marks = re.compile("(" + "|".join(map(re.escape, control_tokens)) + ")")

    def split(text: str) -> list[str]:
        pieces = [piece for piece in marks.split(text) if piece]
        return [f"<[{control_tokens[each]}]>" if each in control_tokens else literal(each) for each in pieces]

    def rule(line: str) -> str:
        if _LAZY not in line:
            return _LITERAL.sub(lambda match: " ".join(split(json.loads(match[0]))) or '""', line)
        # A lazy text ends with a literal. No text can hold a token: where that ends it, it takes all before it.
        found = _LITERAL.search(line)
        if found is None or not (mark := marks.search(end := json.loads(found[0]))):
            return line
        head = line[: found.start()].replace(_LAZY, "", 1)
        return head + " ".join(split(end[mark.start() :])) + line[found.end() :]

    return "\n".join(rule(line) for line in lark.split("\n"))
