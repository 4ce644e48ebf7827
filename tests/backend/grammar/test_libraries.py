"""Which library follows a grammar. Needs none but llguidance."""

from __future__ import annotations

from typing import Any

import pytest

from backend.grammar import libraries, require_library
from backend.grammar.xgrammar_scope import exact_regex, exact_schema, exact_tags

A_NUMBER = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[xgrammar\]'"):
        require_library("xgrammar")
    require_library("auto")


@pytest.mark.parametrize(
    ("schema", "exact"),
    [
        (True, True),
        (False, False),
        (A_NUMBER, True),
        ({**A_NUMBER, "additionalProperties": {"anyOf": [{"type": "null"}, {"const": "x"}]}}, True),
        ({"$defs": {"n": A_NUMBER}, "type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 3}, True),
        ({"$defs": {"n": {"not": {}}}, "type": "array", "items": {"$ref": "#/$defs/n"}}, False),
        ({"type": "array", "items": {"$ref": "#/$defs/n"}}, False),
        ({"enum": ["a", "b"], "type": "string"}, True),
        ({"enum": ["a", 1]}, False),
        ({"type": "object", "required": ["b"]}, False),
        ({"type": "string", "maxLength": 3}, False),
        ({"type": "array", "uniqueItems": True}, False),
        ({"type": ["integer", "null"]}, False),
        ({"minimum": 3}, False),
        ([], False),
    ],
)
def test_schemas_that_xgrammar_holds(schema: Any, exact: bool) -> None:
    assert exact_schema(schema) == exact


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("^a.c$", r"^a[^\n]c$"),
        (r"[^.a]\.", r"[^.a]\."),
        (r"(a|b)\d", r"(a|b)\d"),
        ("a^b", None),
        (r"\bfoo", None),
        (r"[^\d]", None),
        ("[[:alpha:]]", None),
        ("[a", None),
        ("a\\", None),
    ],
)
def test_expressions_that_xgrammar_understands(pattern: str, meant: str | None) -> None:
    assert exact_regex(pattern) == meant


def test_tags_with_control_tokens_or_other_schemas_are_not_for_xgrammar() -> None:
    tag = {"begin": "<f>", "schema": A_NUMBER, "end": "</f>"}
    assert exact_tags({"structures": [tag], "triggers": ["<f"]}, ["<tool>"]) is not None
    assert exact_tags({"structures": [tag], "triggers": ["<f"]}, ["<f>"]) is None
    assert exact_tags({"structures": [{**tag, "schema": {"not": {}}}], "triggers": ["<f"]}, []) is None
    assert exact_tags({"format": {"type": "json_schema", "json_schema": {"not": {}}}}, []) is None
