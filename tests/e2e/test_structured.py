"""Structured output of the real model: always valid, through the openai SDK, alone and beside other requests."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from tests.e2e.clients import SECONDS, openai_client
from tests.e2e.processes import Process

MODEL = "default"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"enum": ["Python", "Rust", "C"]}, "minItems": 1, "maxItems": 3},
        "employed": {"type": "boolean"},
    },
    "required": ["name", "age", "languages", "employed"],
    "additionalProperties": False,
}
ASK = [{"role": "user", "content": "Describe a programmer as JSON."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
BRANCHES = [{"anyOf": [{"type": "string", "pattern": f"a{i}|b{j}"} for j in range(8)]} for i in range(8)]
HOSTILE = [
    {"json_schema": json.dumps({"allOf": BRANCHES})},
    {"json_schema": "[" * 5000},
    {"ebnf": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000},
    {"ebnf": "root ::= r0\n" + "\n".join(f'r{i} ::= r{i + 1} r{i + 1} | "a"' for i in range(4000)) + '\nr4000 ::= "b"'},
    {"regex": "(" * 2000 + "a" + ")" * 2000},
    {"json_schema": json.dumps({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})},
    {"json_schema": json.dumps({"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(4000)}})},
    {"json_schema": json.dumps({"enum": [f"value number {i}" for i in range(20_000)]})},
    {"regex": "(a"},
]
# Looks hostile and is not: exponential for other engines, and huge counts.
HARMLESS = [
    {"regex": "(a+)+b"},
    {"regex": "((a{0,100}){0,100}){0,100}"},
    {"json_schema": json.dumps({"type": "string", "maxLength": 10**9})},
    {"json_schema": json.dumps({"enum": [f"value {i}" for i in range(10_000)]})},
]


@pytest.fixture
def sdk(backends: list[Process]) -> openai.OpenAI:
    return openai_client(backends[0].url)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_schema_is_followed(sdk: openai.OpenAI, temperature: float) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = sdk.chat.completions.create(
        model=MODEL, messages=ASK, response_format=form, temperature=temperature, max_tokens=120, seed=7, n=3
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), PERSON)


def test_a_stream_is_the_whole_answer(sdk: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "prompt": "The programmer: ",
        "max_tokens": 120,
        "temperature": 0,
        "extra_body": {"json_schema": json.dumps(PERSON)},
    }
    whole = sdk.completions.create(**asked).choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in sdk.completions.create(**asked, stream=True) if chunk.choices)
    assert streamed == whole
    jsonschema.validate(json.loads(whole), PERSON)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"regex": r"[0-9]{3}-[0-9]{4}"}, r"[0-9]{3}-[0-9]{4}"),
        ({"ebnf": 'root ::= "yes" | "no, " [a-z]'}, r"yes|no, [a-z]"),
    ],
)
def test_native_constraints(backends: list[Process], constraint: dict[str, str], pattern: str) -> None:
    body = {"text": "Call me at ", "sampling_params": {**constraint, "max_new_tokens": 30, "temperature": 0}}
    answer = httpx.post(f"{backends[0].url}/generate", json=body, timeout=SECONDS, trust_env=False).json()
    assert re.fullmatch(pattern, answer["text"])
    assert answer["meta_info"]["finish_reason"]["type"] == "stop"


def test_choices(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=20, extra_body={"guided_choice": ["left (a)", "right [b]"]}
    )
    assert answer.choices[0].message.content in ("left (a)", "right [b]")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_demanded_tool_call(sdk: openai.OpenAI, choice: Any) -> None:
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[WEATHER],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=80,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])
    assert answer.choices[0].finish_reason == "tool_calls"


def test_log_probabilities_come_with_every_token(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=20, logprobs=True, extra_body={"regex": "certainly so[.!]"}
    )
    choice = answer.choices[0]
    assert re.fullmatch("certainly so[.!]", choice.message.content)
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content


def test_bad_and_hostile_grammars_are_refused_while_others_stream(backends: list[Process]) -> None:
    url = backends[0].url
    long = {"text": "Once", "sampling_params": {"max_new_tokens": 80, "ignore_eos": True}, "stream": True}

    def status(fields: dict[str, Any]) -> int:
        body = {"text": "x", "sampling_params": {**fields, "max_new_tokens": 4}}
        for _ in range(30):
            answer = httpx.post(f"{url}/generate", json=body, timeout=SECONDS, trust_env=False)
            if answer.status_code != 503:  # not tried within a second: too many others are
                break
        return answer.status_code

    with (
        ThreadPoolExecutor(len(HOSTILE) + len(HARMLESS)) as pool,
        httpx.stream("POST", f"{url}/generate", json=long, timeout=SECONDS, trust_env=False) as stream,
    ):
        statuses = list(pool.map(status, [*HOSTILE, *HARMLESS]))
        events = [line for line in stream.iter_lines() if line.startswith("data: {")]
    assert statuses == [400] * len(HOSTILE) + [200] * len(HARMLESS)
    assert json.loads(events[-1][6:])["meta_info"]["completion_tokens"] == 80
