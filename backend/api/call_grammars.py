"""Calls in the model's own form, whose arguments follow their schema, beside an answer that is free or constrained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.api.parsers.call_form import CallForm, CallShape
from backend.grammar import GrammarSpec, compose, literal
from backend.grammar.spec import make_spec

Tools = Sequence[Mapping[str, Any]]

_HOLE = re.compile(r"(\$(?:NAME|KEY|INDEX|ID|BR))")
# Without quotes, by which literals are found.
_PATTERNS = {"$INDEX": "/[0-9]+/", "$ID": "/[A-Za-z0-9]+/", "$BR": "/\\n?/", "$KEY": "/[^<>\\x22\\n]+/"}
_NO_SCHEMA: dict[str, Any] = {"type": "object"}


def is_strict(tool: Mapping[str, Any]) -> bool:
    """Whether the arguments of ``tool`` have to follow its schema."""
    return tool["function"].get("strict") is True


def arguments_schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    """What the grammar asks of a tool's arguments: their schema when it is strict, else any object."""
    schema = tool["function"].get("parameters") if is_strict(tool) else None
    return dict(schema or _NO_SCHEMA)


def calls_beside(answer: GrammarSpec | None, form: CallForm, tools: Tools, *, several: bool) -> GrammarSpec:
    """An answer, or calls of ``tools``. A free answer (``answer`` is None) may hold calls anywhere.

    With ``several`` more may follow a call.
    """
    return _Writer(form, tools).write(answer, several)


class _Writer:
    """Collects the rules of one grammar."""

    def __init__(self, form: CallForm, tools: Tools) -> None:
        self._form = form
        self._tools = tools
        self._rules: list[str] = []
        self._parts: dict[str, GrammarSpec] = {}

    def write(self, answer: GrammarSpec | None, several: bool) -> GrammarSpec:
        groups = [self._group(shape, number, several) for number, shape in enumerate(self._form.shapes)]
        rules = self._among_text(several) if answer is None else self._instead_of(answer, several)
        rules += ["TEXT: /(.|\\n)*/", f"group: {' | '.join(groups)}", *self._rules]
        return compose("\n".join(["%llguidance {}", *rules]), self._parts)

    def _among_text(self, several: bool) -> list[str]:
        form, free = self._form, "/(.|\\n)*/"
        start = "(trigger group)* FREE" if several else "FREE | trigger group"
        if form.bare:
            start, free = f"group | {start}", f"{free} & ~/{form.bare}(.|\\n)*/"
        return [f"start: {start}", f"FREE: {free}", f"trigger[lazy]: FREE {literal(form.trigger)}"]

    def _instead_of(self, answer: GrammarSpec, several: bool) -> list[str]:
        self._parts["answer"] = answer
        bare = "group | " if self._form.bare else ""
        calls = f"{bare}({literal(self._form.trigger)} group){'+' if several else ''}"
        return [f"start: @answer | {calls}"]

    def _group(self, shape: CallShape, number: int, several: bool) -> str:
        calls = [self._call(shape, tool, f"{number}_{index}") for index, tool in enumerate(self._tools)]
        self._rules.append(f"call_{number}: {' | '.join(calls)}")
        more = f" ({literal(shape.between)} call_{number})*" if several and (shape.between or shape.closes) else ""
        self._rules.append(f"group_{number}: {literal(shape.opens)} call_{number}{more} {literal(shape.closes)}")
        return f"group_{number}"

    def _call(self, shape: CallShape, tool: Mapping[str, Any], place: str) -> str:
        name = {"$NAME": tool["function"]["name"]}
        if shape.parameter is None:
            arguments = self._part(f"arguments_{place}", arguments_schema(tool))
        else:
            arguments = self._parameters(shape.parameter, arguments_schema(tool), place)
        self._rules.append(f"call_{place}: {_filled(shape.begin, name)} {arguments} {_filled(shape.end, name)}")
        return f"call_{place}"

    def _part(self, name: str, schema: Any) -> str:
        self._parts[name] = make_spec("json_schema", schema)
        return f"@{name}"

    def _parameters(self, around: tuple[str, str], schema: Mapping[str, Any], place: str) -> str:
        """The parameters in the order of the schema, optional ones perhaps; any, where it names none."""
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            return f"{self._parameter(around, None, {}, schema, f'any_{place}')}*"
        listed = schema.get("required")
        required = listed if isinstance(listed, list) else ()
        found = []
        for index, (key, each) in enumerate(properties.items()):
            rule = self._parameter(around, key, each, schema, f"value_{place}_{index}")
            found.append(rule if key in required else f"{rule}?")
        return " ".join(found)

    def _parameter(
        self, around: tuple[str, str], key: str | None, schema: Any, root: Mapping[str, Any], rule: str
    ) -> str:
        """A rule for one parameter; without ``key`` for any, with a text for its value."""
        choices = _choices(schema)
        is_text = key is None or choices is not None or _may_be_text(schema)
        begin, (first, *rest) = _filled(around[0], {} if key is None else {"$KEY": key}), _pieces(around[1], {})
        end = " ".join([first, *rest])
        if choices is not None:
            value = f"({' | '.join(map(literal, choices))}) {end}"
        elif is_text:
            self._rules.append(f"{rule}_text[lazy]: TEXT {first}")
            value = " ".join([f"{rule}_text", *rest])
        else:
            definitions = {name: root[name] for name in ("$defs", "definitions") if name in root}
            whole = {**definitions, **schema} if isinstance(schema, Mapping) else schema
            value = f"{self._part(rule, whole)} {end}"
        self._rules.append(f"{rule}_parameter: {begin} {value}")
        return f"{rule}_parameter"


def _choices(schema: Any) -> list[str] | None:
    """The texts that a schema lists, when it lists nothing else."""
    listed = schema.get("enum") if isinstance(schema, Mapping) else None
    return listed if isinstance(listed, list) and listed and all(isinstance(each, str) for each in listed) else None


def _may_be_text(schema: Any) -> bool:
    """Whether a value is written bare: it may be a text, or anything."""
    if not isinstance(schema, Mapping):
        return True
    kinds = schema.get("type")
    if kinds is None:
        return not any(key in schema for key in ("enum", "const", "anyOf", "oneOf", "allOf", "$ref", "properties"))
    return "string" in (kinds if isinstance(kinds, list) else [kinds])


def _filled(text: str, holes: Mapping[str, str]) -> str:
    return " ".join(_pieces(text, holes))


def _pieces(text: str, holes: Mapping[str, str]) -> list[str]:
    """Lark for ``text``: holes with a value are text like the rest, the others are patterns."""
    pieces = [""]
    for piece in _HOLE.split(text):
        if piece in _PATTERNS and piece not in holes:
            pieces += [_PATTERNS[piece], ""]
        else:
            pieces[-1] += holes.get(piece, piece)
    return [piece if piece in _PATTERNS.values() else literal(piece) for piece in pieces if piece] or ['""']
