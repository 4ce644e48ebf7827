"""Which grammar reaches the scheduler: strict tools, demanded calls and response formats, in every kind of model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import openai
import pytest

from backend.api.parsers import ParserChoice
from backend.grammar import GrammarSpec
from backend.grammar.compiler import compile_grammar
from tests.backend.api.conftest import MODEL, Backend
from tests.backend.api.test_call_grammars import BYTES, ONE_TOOL, ROME_CALL, say
from tests.backend.api.test_harmony_grammar import CALL, FINAL, ROME, THOUGHT
from tests.backend.byte_tokenizer import EOS, ByteTokenizer

STRICT = [ONE_TOOL]
LOOSE = [{**ONE_TOOL, "function": {**ONE_TOOL["function"], "strict": False}}]
HI = [{"role": "user", "content": "hi"}]
JSON_FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}


async def ask(
    backend: Backend, parsers: ParserChoice, text: str = "x", **fields: Any
) -> tuple[Any, GrammarSpec | None]:
    """The answer of a model that says ``text``, and the grammar that the scheduler got."""
    assert backend.context.loaded is not None
    backend.context.loaded = dataclasses.replace(backend.context.loaded, parsers=parsers)
    ids = ByteTokenizer().encode(text)
    answer = await backend.sdk.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=len(ids) + 1, extra_body={"input_ids": [*ids, EOS]}, **fields
    )
    return answer, backend.engine.received[-1].grammar


HERMES = ParserChoice(None, "hermes")
HARMONY = ParserChoice("gpt-oss", "gpt-oss")


@pytest.mark.parametrize("parsers", [HERMES, HARMONY, ParserChoice(None, "pythonic")])
async def test_without_strict_tools_nothing_is_constrained(backend: Backend, parsers: ParserChoice) -> None:
    assert (await ask(backend, parsers, tools=LOOSE))[1] is None
    assert (await ask(backend, parsers, tools=STRICT, tool_choice="none"))[1] is None


async def test_strict_tools_are_held_to_their_schema(backend: Backend) -> None:
    answer, grammar = await ask(backend, HERMES, ROME_CALL, tools=STRICT)
    assert grammar is not None
    say(compile_grammar(grammar, BYTES).start(), f"Words. {ROME_CALL}", BYTES)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["weather"]


async def test_a_format_without_a_form_leaves_strict_tools_free(backend: Backend) -> None:
    assert (await ask(backend, ParserChoice(None, "pythonic"), tools=STRICT))[1] is None


async def test_beside_a_response_format_calls_stay_possible(backend: Backend) -> None:
    _, grammar = await ask(backend, HERMES, tools=LOOSE, response_format=JSON_FORM)
    assert grammar is not None
    for text in ("12", ROME_CALL):
        state = compile_grammar(grammar, BYTES).start()
        say(state, text, BYTES)
        assert state.may_end


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_demanded_call_of_gpt_oss_keeps_its_own_form(backend: Backend, choice: Any, stream: bool) -> None:
    text = f"{THOUGHT}{CALL}{ROME}"
    answer, grammar = await ask(backend, HARMONY, text, tools=LOOSE, tool_choice=choice, stream=stream)
    if stream:
        chunks = [chunk.choices[0] async for chunk in answer]
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
        grammar = backend.engine.received[-1].grammar
        assert chunks[-1].finish_reason == "tool_calls"
    else:
        message = answer.choices[0].message
        calls = message.tool_calls
        assert message.reasoning_content == "Hm < é.\n"
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", {"city": "Rome"})
    ]
    assert grammar is not None
    assert grammar.kind == "composed"


async def test_a_response_format_of_gpt_oss(backend: Backend) -> None:
    answer, grammar = await ask(backend, HARMONY, f"{THOUGHT}{FINAL}12", response_format=JSON_FORM)
    assert (answer.choices[0].message.content, answer.choices[0].message.reasoning_content) == ("12", "Hm < é.\n")
    assert grammar is not None
    assert json.loads(grammar.text)["parts"]["answer"] == ["json_schema", '{"type": "integer"}']


async def test_a_bad_schema_of_a_strict_tool_is_refused(backend: Backend) -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "nonsense"}}}]
    for parsers in (HERMES, HARMONY):
        with pytest.raises(openai.BadRequestError, match="nonsense"):
            await ask(backend, parsers, tools=tools)
