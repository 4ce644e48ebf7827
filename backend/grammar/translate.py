"""A client's constraint in llguidance's own form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from llguidance import LLMatcher, grammar_from

from backend.grammar.composed import compose, composed_grammar, literal
from backend.grammar.errors import GrammarError
from backend.grammar.exact import with_exact_integers
from backend.grammar.integers import with_ranges
from backend.grammar.spec import FIELDS, GrammarSpec, make_spec

# As Python writes JSON: models have seen it most, and separators without a choice can be jumped over.
_JSON_STYLE: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_NO_TOKENS: dict[str, int] = {}


ControlTokens = Mapping[str, int]  # of a vocabulary: text and id


def translate(spec: GrammarSpec, control_tokens: ControlTokens = _NO_TOKENS) -> str:
    """``control_tokens`` are what tags may begin with. Raises GrammarError."""
    build = _BUILDERS.get(spec.kind)
    if build is None:
        raise GrammarError(f"a constraint must be one of {', '.join(FIELDS)}, got {spec.kind!r}")
    try:
        return build(spec.text, control_tokens)
    except (ValueError, RecursionError) as error:
        if isinstance(error, GrammarError):
            raise
        raise GrammarError(f"{spec.kind} cannot be read: {one_line(str(error) or 'too deeply nested')}") from None


def one_line(text: str, limit: int = 300) -> str:
    """An error of the library, short enough for a client."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _json_schema(text: str, _: ControlTokens) -> str:
    schema = json.loads(text)
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise GrammarError(f"json_schema must be an object, got {type(schema).__name__}")
    exact = with_ranges(with_exact_integers(schema))
    return LLMatcher.grammar_from_json_schema(exact, overrides=_JSON_STYLE)  # type: ignore[arg-type]


def _regex(text: str, _: ControlTokens) -> str:
    return LLMatcher.grammar_from_regex(text)


def _ebnf(text: str, _: ControlTokens) -> str:
    return grammar_from("ebnf", text)


def _structural_tag(text: str, control_tokens: ControlTokens) -> str:
    """Free text, and after a trigger a structure: ``{"structures": [{"begin", "schema", "end"}], "triggers": []}``."""
    form = json.loads(text)
    structures = form.get("structures") if isinstance(form, dict) else None
    triggers = form.get("triggers") if isinstance(form, dict) else None
    if not isinstance(structures, list) or not structures or not isinstance(triggers, list):
        raise GrammarError("structural_tag needs a list of structures and a list of triggers")
    tags = [_tag(structure, triggers) for structure in structures]
    rules = [f"start: ({' | '.join(f'tag_{number}' for number in range(len(tags)))})* TEXT", "TEXT: /(.|\\n)*/"]
    for number, (trigger, begin, _, end) in enumerate(tags):
        rules.append(f"trigger_{number}[lazy]: TEXT {literal(trigger)}")
        rules.append(f"tag_{number}: trigger_{number} {literal(begin)} @schema_{number} {literal(end)}")
    parts = {f"schema_{number}": schema for number, (_, _, schema, _) in enumerate(tags)}
    return _composed(compose("\n".join(rules), parts).text, control_tokens)


def _tag(structure: Any, triggers: list[Any]) -> tuple[str, str, GrammarSpec, str]:
    """Trigger, the rest of what a structure begins with, its schema, its end."""
    begin = structure.get("begin") if isinstance(structure, dict) else None
    end = structure.get("end") if isinstance(structure, dict) else None
    if not isinstance(begin, str) or not isinstance(end, str):
        raise GrammarError(f"a structure needs the texts begin and end, got {one_line(json.dumps(structure), 100)}")
    fitting = [each for each in triggers if isinstance(each, str) and each and begin.startswith(each)]
    if not fitting:
        raise GrammarError(f"no trigger is the beginning of {begin!r}")
    trigger = max(fitting, key=len)
    schema = structure.get("schema")
    return trigger, begin[len(trigger) :], make_spec("json_schema", True if schema is None else schema), end


def _composed(text: str, control_tokens: ControlTokens) -> str:
    return composed_grammar(text, control_tokens, lambda part: translate(part, control_tokens))


_BUILDERS: dict[str, Callable[[str, ControlTokens], str]] = {
    "json_schema": _json_schema,
    "regex": _regex,
    "ebnf": _ebnf,
    "structural_tag": _structural_tag,
    "composed": _composed,
}
