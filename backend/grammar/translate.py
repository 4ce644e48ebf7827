"""A client's constraint in llguidance's own form."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from llguidance import LLMatcher, StructTag, grammar_from

from backend.grammar.errors import GrammarError
from backend.grammar.spec import GrammarSpec

# As Python writes JSON: models have seen it most, and separators without a choice can be jumped over.
_JSON_STYLE: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def translate(spec: GrammarSpec, special_tokens: Collection[str] = ()) -> str:
    """``special_tokens``: texts of the vocabulary's control tokens, which tags may begin with. Raises GrammarError."""
    build = _BUILDERS.get(spec.kind)
    if build is None:
        raise GrammarError(f"a constraint must be one of {', '.join(_BUILDERS)}, got {spec.kind!r}")
    try:
        return build(spec.text, special_tokens)
    except (ValueError, RecursionError) as error:
        if isinstance(error, GrammarError):
            raise
        raise GrammarError(f"{spec.kind} cannot be read: {one_line(str(error) or 'too deeply nested')}") from None


def one_line(text: str, limit: int = 300) -> str:
    """An error of the library, short enough for a client."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _json_schema(text: str, _: Collection[str]) -> str:
    schema = json.loads(text)
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise GrammarError(f"json_schema must be an object, got {type(schema).__name__}")
    return LLMatcher.grammar_from_json_schema(schema, overrides=_JSON_STYLE)  # type: ignore[arg-type]


def _regex(text: str, _: Collection[str]) -> str:
    return LLMatcher.grammar_from_regex(text)


def _ebnf(text: str, _: Collection[str]) -> str:
    return grammar_from("ebnf", text)


def _structural_tag(text: str, special_tokens: Collection[str]) -> str:
    """Free text, and after a trigger a structure: ``{"structures": [{"begin", "schema", "end"}], "triggers": []}``."""
    form = json.loads(text)
    structures = form.get("structures") if isinstance(form, dict) else None
    triggers = form.get("triggers") if isinstance(form, dict) else None
    if not isinstance(structures, list) or not structures or not isinstance(triggers, list):
        raise GrammarError("structural_tag needs a list of structures and a list of triggers")
    tags = [_tag(structure, triggers) for structure in structures]
    special = any(tag.trigger in special_tokens for tag in tags)
    return StructTag.to_grammar(tags, assume_special=special)


def _tag(structure: Any, triggers: list[Any]) -> StructTag:
    begin = structure.get("begin") if isinstance(structure, dict) else None
    end = structure.get("end") if isinstance(structure, dict) else None
    if not isinstance(begin, str) or not isinstance(end, str):
        raise GrammarError(f"a structure needs the texts begin and end, got {one_line(json.dumps(structure), 100)}")
    fitting = [each for each in triggers if isinstance(each, str) and each and begin.startswith(each)]
    if not fitting:
        raise GrammarError(f"no trigger is the beginning of {begin!r}")
    schema = structure.get("schema")
    grammar = {} if schema is None or schema is True else schema
    if not isinstance(grammar, dict):
        raise GrammarError(f"the schema of {begin!r} must be an object, got {type(grammar).__name__}")
    styled = {**grammar, "x-guidance": _JSON_STYLE}
    return StructTag(trigger=max(fitting, key=len), begin=begin, grammar=styled, end=end)


_BUILDERS: dict[str, Callable[[str, Collection[str]], str]] = {
    "json_schema": _json_schema,
    "regex": _regex,
    "ebnf": _ebnf,
    "structural_tag": _structural_tag,
}
