"""Constrained outputs are always valid, however the model chooses."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

import jsonschema
import numpy as np
import pytest
import tokenizers
from llguidance import LLTokenizer

from backend.grammar import (
    GrammarCompiler,
    GrammarError,
    GrammarSpec,
    GrammarState,
    Vocabulary,
    bitmask_words,
    spec_from_fields,
    spec_from_response_format,
)
from backend.grammar.compiler import compile_grammar
from backend.grammar.spec import MAX_BYTES, make_spec
from benchmarks.random_model import allowed_tokens, generate
from benchmarks.random_schemas import HAND_WRITTEN, random_document_schema, random_object_schema

VOCABULARY = Vocabulary.of_bytes()
EOS = VOCABULARY.tokenizer.eos_token


def start(kind: str, value: object) -> GrammarState:
    return compile_grammar(make_spec(kind, value), VOCABULARY).start()


def say(kind: str, value: object, seed: int = 0, jump: bool = True) -> str:
    tokens, _ = generate(start(kind, value), VOCABULARY.size, EOS, random.Random(seed), jump=jump)
    return bytes(tokens).decode()


@pytest.mark.parametrize("block", range(5))
@pytest.mark.parametrize("schema_of", [random_object_schema, random_document_schema])
def test_every_output_of_a_schema_is_valid(schema_of: Callable[[int], dict], block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        schema = schema_of(seed)
        text = say("json_schema", schema, seed, jump=seed % 2 == 0)
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", sorted(HAND_WRITTEN))
@pytest.mark.parametrize("seed", range(3))
def test_hand_written_schemas(name: str, seed: int) -> None:
    jsonschema.validate(json.loads(say("json_schema", HAND_WRITTEN[name], seed)), HAND_WRITTEN[name])


@pytest.mark.parametrize(
    ("schema", "text", "taken"),
    [
        ({"type": "integer"}, "-9223372036854774784", True),
        ({"type": "integer"}, "9" * 20, False),
        ({"type": ["integer", "null"]}, "9" * 20, False),
        ({"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "integer"}]}}, f"[{'9' * 20}]", False),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, f'{{"a": {"9" * 20}}}', False),
        ({"type": "integer", "minimum": 0}, "9" * 20, True),
        ({"type": "number"}, "9" * 20, True),
        ({"properties": {"type": {"type": "integer"}}, "required": ["type"]}, '{"type": 1}', True),
        ({}, "9" * 20, True),
    ],
)
def test_integers_without_a_range_have_64_bits(schema: dict, text: str, taken: bool) -> None:
    assert accepts(start("json_schema", schema), text) is taken


@pytest.mark.parametrize(
    ("limits", "allowed", "refused"),
    [
        ({"minimum": 2**53 + 1, "maximum": 2**53 + 4}, 2**53 + 2, 2**53),
        ({"exclusiveMinimum": 2**53, "maximum": 2**53 + 6}, 2**53 + 6, 2**53),
        ({"exclusiveMaximum": -(2**53), "minimum": -(2**53) - 7}, -(2**53) - 6, -(2**53)),
        ({"minimum": 0, "maximum": 2**64 - 1}, 2**62, -1),
        ({"minimum": -(2**63), "maximum": 2**63 - 1}, -(2**62), 2**63),
    ],
)
def test_large_limits_are_kept_to(limits: dict, allowed: int, refused: int) -> None:
    schema = {"$ref": "#/$defs/minimum", "$defs": {"minimum": {"type": "integer", **limits}}}
    assert accepts(start("json_schema", schema), str(allowed))
    assert not accepts(start("json_schema", schema), str(refused))


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 12345678901234567},
        {"type": "object", "properties": {"default": {"enum": [1, [12345678901234567]]}}},
        {"allOf": [{"type": "integer", "enum": [2**63 - 1]}]},
        {"const": 10**400},
        {"type": "integer", "minimum": 2**63, "maximum": 2**64},
    ],
)
def test_integers_that_would_be_written_wrongly_are_refused(schema: dict) -> None:
    with pytest.raises(GrammarError, match="json_schema"):
        start("json_schema", schema)


def accepts(state: GrammarState, text: str) -> bool:
    """Whether ``text`` is a whole answer."""
    try:
        for byte in text.encode():
            state.advance(byte)
    except GrammarError:
        return False
    return state.may_end


def test_a_regex() -> None:
    for seed in range(10):
        assert re.fullmatch(r"(ab|c){2,4}-\d+", say("regex", r"(ab|c){2,4}-\d{1,3}", seed))


def test_an_ebnf_grammar() -> None:
    grammar = 'root ::= "yes" | number\nnumber ::= [0-9] [0-9]'
    assert {say("ebnf", grammar, seed) == "yes" for seed in range(20)} == {True, False}
    assert all(re.fullmatch(r"yes|\d\d", say("ebnf", grammar, seed)) for seed in range(20))


def test_structural_tags() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"structures": [{"begin": "<f=x>", "schema": schema, "end": "</f>"}], "triggers": ["<f="]}
    state = start("structural_tag", form)
    for byte in b"Some words, then <f=":
        state.advance(byte)
    assert bytes(state.forced()) == b'x>{"a": '
    for byte in b'x>{"a": 12}</f> and on':
        state.advance(byte)
    assert state.may_end


def test_jumping_says_the_same_in_fewer_steps() -> None:
    schema = {
        "type": "object",
        "properties": {"first_name": {"enum": ["Anna", "Bert"]}, "favourite_colour": {"enum": ["red", "green"]}},
        "required": ["first_name", "favourite_colour"],
        "additionalProperties": False,
    }
    plain, plain_steps = generate(start("json_schema", schema), VOCABULARY.size, EOS, random.Random(1), jump=False)
    jumped, steps = generate(start("json_schema", schema), VOCABULARY.size, EOS, random.Random(1), jump=True)
    assert steps * 2 <= plain_steps
    for tokens in (plain, jumped):
        jsonschema.validate(json.loads(bytes(tokens)), schema)


def test_forced_tokens_are_what_the_mask_allows() -> None:
    for seed in range(20):
        compiled = compile_grammar(make_spec("json_schema", random_object_schema(seed)), VOCABULARY)
        forced = compiled.start().forced()
        state = compiled.start()
        for token in forced:
            assert token in allowed_tokens(state, VOCABULARY.size)
            state.advance(token)


@pytest.mark.parametrize(
    "value", [{"name": "Ada", "age": 36}, ["the capital of France", 2024], "日本語 🙂", {"": [None]}]
)
def test_forced_tokens_are_those_that_the_tokenizer_writes(value: object) -> None:
    """No drift: an answer without a choice has the tokens that the model was trained on for this text."""
    tokenizer = tiny_tokenizer()
    vocabulary = Vocabulary.from_json(tokenizer.to_str(), size=tokenizer.get_vocab_size(), eos_token_ids=[0])
    state = compile_grammar(make_spec("json_schema", {"const": value}), vocabulary).start()
    forced = state.forced()
    assert forced == tokenizer.encode(json.dumps(value, ensure_ascii=False), add_special_tokens=False).ids
    for token in forced:
        state.advance(token)
    assert state.may_end


def test_what_is_remembered_changes_no_token() -> None:
    """Against the library's own tokenizer, and its own slices of the vocabulary: the same masks and forced tokens."""
    form, chance, jumped = tiny_tokenizer(), random.Random(1), 0
    size = form.get_vocab_size()
    ours = Vocabulary.from_json(form.to_str(), size=size, eos_token_ids=[0])
    plain = Vocabulary(LLTokenizer(form.to_str(), n_vocab=size, eos_token=[0]), size)
    for seed in range(40):
        spec = make_spec("json_schema", (random_document_schema if seed % 2 else random_object_schema)(seed))
        state, reference = (compile_grammar(spec, vocabulary).start() for vocabulary in (ours, plain))
        while not reference.is_done:
            forced = reference.forced()
            assert state.forced() == forced
            assert state.jump(len(forced)) == forced
            jumped += len(forced)
            for token in forced:
                reference.advance(token)
            if reference.is_done:
                break
            allowed = allowed_tokens(reference, size)
            assert allowed_tokens(state, size) == allowed
            token = chance.choice(allowed)
            if token == 0:
                break
            for each in (state, reference):
                each.advance(token)
        assert state.is_done == reference.is_done
    assert jumped > 500


def test_a_jump_keeps_to_its_room_and_ends_before_a_stop_token() -> None:
    for room, stops, expected in ((9, b"", b"abcd"), (2, b"", b"ab"), (0, b"", b""), (9, b"c", b"ab"), (9, b"a", b"")):
        state = start("regex", "abcd[ef]")
        assert bytes(state.jump(room, frozenset(stops))) == expected
        assert bytes(state.forced()) == b"abcd"[len(expected) :]


def test_states_of_one_grammar_are_independent() -> None:
    compiled = compile_grammar(make_spec("regex", "ab|cd"), VOCABULARY)
    first, second = compiled.start(), compiled.start()
    first.advance(ord("a"))
    assert allowed_tokens(first, VOCABULARY.size) == [ord("b")]
    assert allowed_tokens(second, VOCABULARY.size) == [ord("a"), ord("c")]


def test_rollback() -> None:
    state = start("regex", "abc")
    for byte in b"ab":
        state.advance(byte)
    state.rollback(1)
    assert bytes(state.forced()) == b"bc"


def test_a_token_that_is_not_allowed_is_an_error() -> None:
    state = start("regex", "abc")
    with pytest.raises(GrammarError, match="left its grammar"):
        state.advance(ord("x"))
    with pytest.raises(GrammarError):
        state.fill_mask(np.zeros(bitmask_words(VOCABULARY.size), np.int32))


def test_a_mask_row_of_the_wrong_form_is_refused() -> None:
    state = start("regex", "abc")
    for row in (np.zeros(3, np.int32), np.zeros(bitmask_words(VOCABULARY.size), np.int64)):
        with pytest.raises(TypeError, match="mask row"):
            state.fill_mask(row)


def test_padded_vocabularies_allow_no_padding() -> None:
    tokenizer = tiny_tokenizer()
    size = tokenizer.get_vocab_size() + 100
    vocabulary = Vocabulary.from_json(tokenizer.to_str(), size=size, eos_token_ids=[0])
    state = compile_grammar(make_spec("regex", "(.|\n)*"), vocabulary).start()
    allowed = allowed_tokens(state, size)
    assert max(allowed) < tokenizer.get_vocab_size()
    assert len(allowed) > 256


def tiny_tokenizer():
    from tests.backend.prompt.tiny import train

    return train()


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("json_schema", {"type": "nonsense"}, "nonsense"),
        ("json_schema", "{not json", "cannot be read"),
        ("json_schema", [1], "must be an object"),
        ("json_schema", {"$ref": "http://elsewhere/x"}, "elsewhere"),
        ("json_schema", {"type": "array", "uniqueItems": True}, "uniqueItems"),
        ("regex", "(a", "unclosed"),
        ("regex", "(?=a)b", "look"),
        ("ebnf", "root ::= other", "other"),
        ("structural_tag", {"structures": []}, "structures"),
        ("structural_tag", {"structures": [{"begin": "<f>", "end": ""}], "triggers": ["<g"]}, "no trigger"),
        ("nonsense", "x", "must be one of"),
    ],
)
def test_bad_grammars_say_why(kind: str, value: object, words: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(words)) as error:
        start(kind, value)
    assert "\n" not in str(error.value)


def test_the_compiler_compiles_equal_specs_once() -> None:
    compiler = GrammarCompiler(lambda: VOCABULARY, capacity=2)
    specs = [make_spec("regex", text) for text in ("a", "b", "c")]
    first = compiler.submit(specs[0])
    assert compiler.submit(GrammarSpec("regex", "a")) is first
    for spec in specs[1:]:
        compiler.submit(spec).result(10)
    assert compiler.submit(specs[0]) is not first
    with pytest.raises(GrammarError):
        compiler.submit(make_spec("regex", "(")).result(10)
    compiler.close()


def test_specs_from_requests() -> None:
    assert spec_from_fields({"regex": "a", "ebnf": None, "json_schema": ""}) == GrammarSpec("regex", "a")
    assert spec_from_fields({}) is None
    with pytest.raises(GrammarError, match="only one"):
        spec_from_fields({"regex": "a", "ebnf": "b"})
    schema = {"type": "object"}
    assert spec_from_response_format({"type": "text"}) is None
    spec = spec_from_response_format({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert spec == spec_from_response_format({"type": "json_object"}) == make_spec("json_schema", schema)
    for form in ({"type": "json_schema"}, {"type": "xml"}, {}):
        with pytest.raises(GrammarError, match="response_format"):
            spec_from_response_format(form)
    with pytest.raises(GrammarError, match="bytes"):
        make_spec("regex", "a" * (MAX_BYTES + 1))


def test_a_tokenizer_that_the_library_cannot_read_refuses_grammars() -> None:
    """Its error must not reach the scheduler as anything else: that would end it."""

    def vocabulary() -> Vocabulary:
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
        return Vocabulary.from_json(words.to_str(), size=2, eos_token_ids=[0])

    compiler = GrammarCompiler(vocabulary)
    with pytest.raises(GrammarError, match=r"regex cannot be followed with this model's tokenizer: .*decoder"):
        compiler.submit(make_spec("regex", "a")).result()
    compiler.close()
