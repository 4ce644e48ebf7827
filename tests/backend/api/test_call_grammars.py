"""Strict tools: free text stays free, and once a call has begun it fits its schema in every format."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
import tokenizers
from tokenizers import AddedToken

from backend.api.call_grammars import calls_beside
from backend.api.parsers import make_parser
from backend.api.parsers.events import Parsed, join
from backend.api.parsers.registry import TOOL_FORMATS
from backend.grammar import GrammarError, GrammarSpec, GrammarState, Vocabulary
from backend.grammar.compiler import compile_grammar
from backend.grammar.spec import make_spec
from benchmarks.random_model import allowed_tokens, generate
from tests.backend.prompt.tiny import train

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "note": {"type": "string", "maxLength": 4},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "place": {"$ref": "#/$defs/place"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"x": {"type": "integer", "maximum": 9, "minimum": 0}}}},
}
SEARCH = {"type": "object", "properties": {"query": {"type": "string", "maxLength": 5}}, "required": ["query"]}


def tool(name: str, parameters: dict[str, Any] | None, strict: bool = True) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}}


TOOLS = [tool("weather", WEATHER), tool("find_it", SEARCH), tool("free", WEATHER, strict=False), tool("bare", None)]
ONE_TOOL = TOOLS[0]
SCHEMAS = {"weather": WEATHER, "find_it": SEARCH}
FORMS = {name: parser.form for name, parser in TOOL_FORMATS.items() if parser.form is not None}
WITH_JSON = [name for name, form in FORMS.items() if form.shapes[0].parameter is None]
BYTES = Vocabulary.of_bytes()
MARKS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<arg_key>", "</arg_key>", "<arg_value>"]
MARKS += ["<|python_tag|>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "</arg_value>"]
MARKS += ["<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"]
MARKS += ["<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"]


def with_marks() -> tuple[tokenizers.Tokenizer, Vocabulary]:
    """A vocabulary in which the formats' marks are control tokens."""
    tokenizer = train()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    eos = tokenizer.token_to_id("<|endoftext|>")
    size = tokenizer.get_vocab_size()
    return tokenizer, Vocabulary.from_json(tokenizer.to_str(), size=size, eos_token_ids=[eos], special_tokens=MARKS)


TOKENIZER, TOKENS = with_marks()


def grammar(name: str, several: bool = True) -> GrammarSpec:
    return calls_beside(None, FORMS[name], TOOLS, several=several)


def parse(name: str, text: str) -> Parsed:
    parser = make_parser(None, name, tools=TOOLS)
    return join([parser.push(text), parser.finish()])


def say(state: GrammarState, text: str, vocabulary: Vocabulary) -> None:
    for token in encode(text, vocabulary):
        state.advance(token)


def encode(text: str, vocabulary: Vocabulary) -> list[int]:
    return list(text.encode()) if vocabulary is BYTES else TOKENIZER.encode(text, add_special_tokens=False).ids


def opening(name: str) -> str:
    """The beginning of an answer that leads into a call."""
    return '{"name": ' if name == "llama3" else f"Let me see. {FORMS[name].trigger}"


def endings(name: str) -> list[str]:
    """What ends a value."""
    return ['"', "}", "]", *[shape.parameter[1].replace("$BR", "") for shape in FORMS[name].shapes if shape.parameter]]


def talk(state: GrammarState, vocabulary: Vocabulary, chance: random.Random, endings: list[str]) -> str:
    """A model that says anything the mask allows, with a liking for ends: real models come to one."""
    said: list[int] = []
    script: list[int] = []
    while not state.is_done:
        forced = state.forced() if chance.random() < 0.5 else []
        allowed = [] if forced else allowed_tokens(state, vocabulary.size)
        if not forced and not script and chance.random() < 0.4:
            script = encode(chance.choice(endings), vocabulary)
        if not forced:
            if script and script[0] not in allowed:
                script = []
            token = script.pop(0) if script else chance.choice(allowed)
            forced = [token]
        for token in forced:
            state.advance(token)
        said += forced
    said = [token for token in said if token != vocabulary.tokenizer.eos_token]
    return bytes(said).decode(errors="replace") if vocabulary is BYTES else TOKENIZER.decode(said, False)


@pytest.mark.parametrize("name", sorted(FORMS))
@pytest.mark.parametrize("vocabulary", [BYTES, TOKENS], ids=["bytes", "control tokens"])
def test_a_call_that_has_begun_fits_its_schema(name: str, vocabulary: Vocabulary) -> None:
    compiled = compile_grammar(grammar(name, several=False), vocabulary)
    seen = set()
    for seed in range(12):
        state = compiled.start()
        say(state, opening(name), vocabulary)
        (call,) = parse(name, opening(name) + talk(state, vocabulary, random.Random(seed), endings(name))).calls
        seen.add(call.name)
        if call.name in SCHEMAS:
            checked = json.loads(call.arguments)
            schema = SCHEMAS[call.name] if name in WITH_JSON else without_lengths(SCHEMAS[call.name])
            jsonschema.validate(checked, schema)
    assert len(seen) > 1


def without_lengths(schema: dict[str, Any]) -> dict[str, Any]:
    """Values that are written bare are texts of any length."""
    properties = {
        key: {k: v for k, v in each.items() if k != "maxLength"} for key, each in schema["properties"].items()
    }
    return {**schema, "properties": properties}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_free_text_stays_free(name: str) -> None:
    for vocabulary in (BYTES, TOKENS):
        state = compile_grammar(grammar(name), vocabulary).start()
        say(state, 'Here: {"name": 5}, [1], a < b and é😀.', vocabulary)
        assert state.may_end
        assert state.forced() == []


ARGUMENTS = '{"city": "Rome", "days": 3}'
ROME_CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
DEEPSEEK = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
KIMI = "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
# format: a call as models write it, in all its variants
CALLS = {
    "hermes": [ROME_CALL],
    "qwen3_coder": [
        "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>"
    ],
    "glm": [
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
        "<tool_call>weather<arg_key>city</arg_key><arg_value>Rome</arg_value><arg_key>days</arg_key>"
        "<arg_value>3</arg_value></tool_call>",
    ],
    "mistral": [
        f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}",
        f"[TOOL_CALLS]weather[CALL_ID]abcDEF123[ARGS]{ARGUMENTS}",
        f'[TOOL_CALLS][{{"name": "weather", "arguments": {ARGUMENTS}}}]',
    ],
    "deepseekv3": [
        f"{DEEPSEEK}weather<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        f"{DEEPSEEK}function<｜tool▁sep｜>weather\n```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ],
    "kimi_k2": [f"{KIMI}{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>"],
    "llama3": [
        f'{{"name": "weather", "parameters": {ARGUMENTS}}}',
        f'<|python_tag|>{{"name": "weather", "parameters": {ARGUMENTS}}}',
    ],
}


@pytest.mark.parametrize("vocabulary", [BYTES, TOKENS], ids=["bytes", "control tokens"])
@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in CALLS.items() for text in texts])
def test_models_own_writing_fits(name: str, text: str, several: bool, vocabulary: Vocabulary) -> None:
    state = compile_grammar(grammar(name, several), vocabulary).start()
    say(state, text, vocabulary)
    assert state.may_end
    assert state.is_done is not several
    (call,) = parse(name, text).calls
    assert (call.name, json.loads(call.arguments)) == ("weather", json.loads(ARGUMENTS))


@pytest.mark.parametrize("name", sorted(CALLS))
def test_arguments_that_do_not_fit_cannot_be_said(name: str) -> None:
    for text in CALLS[name]:
        state = compile_grammar(grammar(name), BYTES).start()
        with pytest.raises(GrammarError, match="left its grammar"):
            say(state, text.replace("Rome", "Oslo"), BYTES)


def test_a_bare_call_of_llama_is_held_to_its_schema_too() -> None:
    state = compile_grammar(grammar("llama3"), BYTES).start()
    say(state, '{"name": "w', BYTES)
    assert bytes(state.forced()) == b'eather", "parameters": {"city": "'


def test_a_text_that_spells_a_control_token_is_no_control_token() -> None:
    spec = make_spec("json_schema", {"const": "a<tool_call>b"})
    for jump in (True, False):
        state = compile_grammar(spec, TOKENS).start()
        tokens, _ = generate(state, TOKENS.size, TOKENS.tokenizer.eos_token, random.Random(0), jump=jump)
        assert TOKENIZER.token_to_id("<tool_call>") not in tokens
        assert json.loads(TOKENIZER.decode(tokens)) == "a<tool_call>b"


@pytest.mark.parametrize("required", [None, 5, "days"])
@pytest.mark.parametrize("name", FORMS)
def test_a_list_of_required_parameters_that_is_none_demands_nothing(name: str, required: Any) -> None:
    parameters = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": required}
    calls_beside(None, FORMS[name], [tool("f", parameters)], several=True)


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x7fb", "a\x0bb", "a\nb", 'a"\\b'])
@pytest.mark.parametrize("name", FORMS)
def test_odd_characters_in_choices(name: str, text: str) -> None:
    parameters = {"type": "object", "properties": {"x": {"enum": [text, "other"]}}, "required": ["x"]}
    spec = calls_beside(None, FORMS[name], [tool("f", parameters)], several=True)
    for vocabulary in (BYTES, TOKENS):
        compile_grammar(spec, vocabulary).start()
