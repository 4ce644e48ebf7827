"""The xgrammar backend: what it holds is held exactly, the rest goes to llguidance."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from backend.grammar import GrammarError, Vocabulary, bitmask_words
from backend.grammar.spec import make_spec
from backend.grammar.state import GrammarState
from benchmarks.random_model import allowed_tokens, generate
from benchmarks.random_schemas import HAND_WRITTEN, random_document_schema, random_object_schema

pytest.importorskip("xgrammar", reason="the extra xgrammar is not installed")
from backend.grammar import xgrammar_library
from backend.grammar.xgrammar_library import XGrammarCompiler, XGrammarFiller, XGrammarState

VOCABULARY = Vocabulary.of_bytes()
EOS = VOCABULARY.tokenizer.eos_token
LIBRARY = XGrammarCompiler(VOCABULARY)
A_NUMBER = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def start(kind: str, value: object) -> Any:
    return LIBRARY.compile(make_spec(kind, value)).start()


def say(kind: str, value: object, seed: int) -> str:
    tokens, _ = generate(start(kind, value), VOCABULARY.size, EOS, random.Random(seed), jump=True)
    return bytes(tokens).decode(errors="replace")  # it lets halves of surrogate pairs in, as bytes


def test_every_output_of_a_schema_is_valid() -> None:
    by_xgrammar = 0
    for seed in range(60):
        for schema in (random_object_schema(seed), random_document_schema(seed)):
            by_xgrammar += isinstance(start("json_schema", schema), XGrammarState)
            text = say("json_schema", schema, seed)
            jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
    assert by_xgrammar > 8


@pytest.mark.parametrize("name", sorted(HAND_WRITTEN))
def test_hand_written_schemas(name: str) -> None:
    for seed in range(2):
        jsonschema.validate(json.loads(say("json_schema", HAND_WRITTEN[name], seed)), HAND_WRITTEN[name])


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("json_schema", A_NUMBER, '{"a": 12}'),
        ("regex", r"^(ab|c){2,4}-\d{1,3}.", "abc-12é"),
        ("ebnf", 'root ::= "yes" | number\nnumber ::= [0-9] [0-9]', "42"),
        (
            "structural_tag",
            {"structures": [{"begin": "<f=x>", "schema": A_NUMBER, "end": "</f>"}], "triggers": ["<f="]},
            'Words, <f=x>{"a": 1}</f> and on',
        ),
        (
            "structural_tag",
            {"format": {"type": "tag", "begin": "<f>", "content": {"type": "any_text"}, "end": "</f>"}},
            "<f>words</f>",
        ),
    ],
)
def test_each_kind_is_followed_to_its_end(kind: str, value: object, text: str) -> None:
    state = start(kind, value)
    assert isinstance(state, XGrammarState)
    for byte in text.encode():
        assert byte in allowed_tokens(state, VOCABULARY.size)
        state.advance(byte)
    assert state.may_end
    assert EOS in allowed_tokens(state, VOCABULARY.size)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json_schema", {"type": "array", "prefixItems": [{"type": "integer"}]}),
        ("json_schema", {"type": "string", "pattern": "^a+$"}),
        ("json_schema", {"type": "string", "maxLength": 5}),
        ("json_schema", {"allOf": [A_NUMBER]}),
        ("json_schema", {**A_NUMBER, "anyOf": [{"required": ["a"]}]}),
        ("json_schema", {"type": "object", "properties": {"a": {"pattern": "^b", "type": "string"}}}),
        ("regex", r"\p{L}+"),
        ("regex", r"[^\d]"),
        ("regex", r"(?i)yes"),
    ],
)
def test_what_xgrammar_would_not_hold_goes_to_llguidance(kind: str, value: object) -> None:
    assert isinstance(start(kind, value), GrammarState)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "(["),
        ("ebnf", "root ::= x"),
        ("json_schema", {"type": "nothing"}),
        ("structural_tag", {"structures": [], "triggers": []}),
        ("structural_tag", {"format": {"type": "nothing"}}),
        ("structural_tag", {"format": {"type": "json_schema", "json_schema": {"allOf": [A_NUMBER]}}}),
    ],
)
def test_bad_grammars_are_errors(kind: str, value: object) -> None:
    with pytest.raises(GrammarError):
        start(kind, value)


def test_an_answer_that_can_say_nothing_more_is_done() -> None:
    state = start("regex", "ab")
    for byte in b"ab":
        assert not state.is_done
        state.advance(byte)
    assert state.is_done
    state.rollback(1)
    assert (state.is_done, state.may_end, allowed_tokens(state, VOCABULARY.size)) == (False, False, [ord("b")])
    with pytest.raises(GrammarError, match="does not allow token 97"):
        state.advance(ord("a"))


def test_an_answer_that_may_go_on_is_not_done() -> None:
    state = start("regex", "a+")
    state.advance(ord("a"))
    assert (state.is_done, state.may_end) == (False, True)
    state.advance(EOS)
    assert state.is_done


def test_a_grammar_without_end_forces_nothing() -> None:
    state = start("ebnf", 'root ::= "a" root')
    assert (state.forced(), state.jump(10)) == ([], [])
    assert allowed_tokens(state, VOCABULARY.size) == [ord("a")]


def test_masks_of_both_libraries_are_filled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [start("regex", "ab"), start("regex", r"(?i)yes"), start("regex", "b+")]
    bits = np.full((5, bitmask_words(VOCABULARY.size)), -1, np.int32)
    assert XGrammarFiller().fill(states, [4, 0, 2], bits) == {}
    allowed = [np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist() for row in bits]
    assert (allowed[4], allowed[0], allowed[2]) == ([ord("a")], [ord("Y"), ord("y")], [ord("b")])
    assert (bits[1] == -1).all()
    monkeypatch.setattr(xgrammar_library, "MASK_CPU_SECONDS", -1.0)
    problems = XGrammarFiller().fill(states, [4, 0, 2], bits)
    assert set(problems) == {4, 2}
    assert "too long" in problems[4]


def test_expressions_mean_what_they_mean_to_python() -> None:
    for pattern in (r"a.b", r"^x{2,3}$", r"[^a]", r"(a|b)?c*", r"\w+\s\d", "é{2}", r"[\d-]x", r"\$\."):
        for seed in range(5):
            text = say("regex", pattern, seed)
            assert re.fullmatch(pattern, text), (pattern, text)
