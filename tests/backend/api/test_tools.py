"""Tool calls and reasoning in chat completions, by the openai SDK. The fake model says what the test writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from backend.api.parsers import ParserChoice
from tests.backend.api.conftest import MODEL, Backend
from tests.backend.byte_tokenizer import EOS, ByteTokenizer

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
SAID = f"<think>\nhm\n</think>\n\nLook:\n{CALL}\n{CALL}"


@pytest.fixture
def say(backend: Backend) -> Callable[..., Any]:
    """Asks for an answer whose text is given."""
    assert backend.context.loaded is not None
    backend.context.loaded = dataclasses.replace(backend.context.loaded, parsers=ParserChoice("qwen3", "hermes"))

    async def ask(text: str, *, cut: bool = False, extra: dict[str, Any] | None = None, **fields: Any) -> Any:
        ids = ByteTokenizer().encode(text)
        body = {"input_ids": ids if cut else [*ids, EOS], **(extra or {})}
        fields = {"tools": TOOLS, "max_tokens": len(ids) + (not cut), **fields}
        return await backend.sdk.chat.completions.create(model=MODEL, messages=HI, extra_body=body, **fields)

    return ask


async def collect(stream: Any) -> tuple[str, str, list[dict[str, Any]], str]:
    """Reasoning, content, calls and finish reason as a client puts them together."""
    reasoning, content, calls, finish = "", "", {}, ""
    async for chunk in stream:
        choice = chunk.choices[0]
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        content += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            entry = calls.setdefault(call.index, {"id": call.id, "name": "", "arguments": ""})
            entry["name"] += call.function.name
            entry["arguments"] += call.function.arguments
        finish = choice.finish_reason or finish
    return reasoning, content, [calls[index] for index in sorted(calls)], finish


async def test_whole(say: Callable[..., Any]) -> None:
    choice = (await say(SAID)).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Look:"
    assert choice.message.reasoning_content == "hm"
    assert [call.function.name for call in choice.message.tool_calls] == ["weather", "weather"]
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Zürich"}
    assert len({call.id for call in choice.message.tool_calls}) == 2


async def test_a_stream_says_the_same(say: Callable[..., Any]) -> None:
    reasoning, content, calls, finish = await collect(await say(SAID, stream=True))
    assert (reasoning, content, finish) == ("hm", "Look:", "tool_calls")
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [("weather", {"city": "Zürich"})] * 2
    assert all(call["id"] for call in calls)


async def test_a_call_alone_has_no_content(say: Callable[..., Any]) -> None:
    message = (await say(CALL)).choices[0].message
    assert (message.content, len(message.tool_calls)) == (None, 1)


async def test_an_answer_without_calls(say: Callable[..., Any]) -> None:
    choice = (await say("Just text.")).choices[0]
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("Just text.", None, "stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_was_cut_off_is_not_given(say: Callable[..., Any], stream: bool) -> None:
    answer = await say(CALL[:-20], cut=True, stream=stream)
    if stream:
        _, _, calls, finish = await collect(answer)
        assert (calls, finish) == ([], "length")
    else:
        assert (answer.choices[0].message.tool_calls, answer.choices[0].finish_reason) == (None, "length")


@pytest.mark.parametrize("stream", [False, True])
async def test_one_call_at_most(say: Callable[..., Any], stream: bool) -> None:
    answer = await say(CALL + CALL, parallel_tool_calls=False, stream=stream)
    calls = (await collect(answer))[2] if stream else answer.choices[0].message.tool_calls
    assert len(calls) == 1


async def test_without_tools_the_text_stays_as_it_is(say: Callable[..., Any]) -> None:
    for fields in ({"tools": openai.omit}, {"tool_choice": "none"}):
        choice = (await say(CALL, **fields)).choices[0]
        assert (choice.message.content, choice.finish_reason) == (CALL, "stop")


async def test_reasoning_stays_in_the_text_where_that_is_wanted(say: Callable[..., Any]) -> None:
    message = (await say("<think>hm</think>yes", extra={"separate_reasoning": False})).choices[0].message
    assert (message.content, message.reasoning_content) == ("<think>hm</think>yes", None)


async def test_reasoning_in_one_piece(say: Callable[..., Any]) -> None:
    stream = await say("<think>let me see</think>yes", stream=True, extra={"stream_reasoning": False})
    pieces = [getattr(chunk.choices[0].delta, "reasoning_content", None) async for chunk in stream]
    assert [piece for piece in pieces if piece] == ["let me see"]


async def test_the_template_sees_the_tools(backend: Backend, say: Callable[..., Any]) -> None:
    seen: dict[str, Any] = {}

    class Template:
        def render(self, messages: object, **options: Any) -> str:
            seen.update(options)
            return "prompt"

    backend.frontend.intake.template = Template()
    extra = {"input_ids": None, "chat_template_kwargs": {"enable_thinking": False}}
    await say("", extra=extra, max_tokens=1, reasoning_effort="low")
    assert (seen["tools"], seen["enable_thinking"], seen["reasoning_effort"]) == (TOOLS, False, "low")
    seen.clear()
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}
    other = {"type": "function", "function": {"name": "other"}}
    await say("", extra={"input_ids": None}, tools=[other, *TOOLS], tool_choice=allowed, max_tokens=1)
    assert seen["tools"] == TOOLS
    seen.clear()
    await say("", extra={"input_ids": None}, tool_choice="none", max_tokens=1)
    assert "tools" not in seen


DEMANDED = '[{"name": "weather", "parameters": {"city": "[Zürich]"}}, {"name": "weather", "parameters": {}}]'
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("thought", ["", "<think>\nhm\n</think>\n\n"])
async def test_a_demanded_call_is_a_list_of_calls(say: Callable[..., Any], choice: Any, thought: str) -> None:
    whole = (await say(thought + DEMANDED, tool_choice=choice)).choices[0]
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in whole.message.tool_calls]
    assert calls == [("weather", {"city": "[Zürich]"}), ("weather", {})]
    assert (whole.message.content, whole.finish_reason) == (None, "tool_calls")
    reasoning, content, streamed, finish = await collect(await say(thought + DEMANDED, tool_choice=choice, stream=True))
    assert (reasoning, content, finish) == ("hm" if thought else "", "", "tool_calls")
    assert [(call["name"], json.loads(call["arguments"])) for call in streamed] == calls


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "wind"}}}, "tool_choice names no tool"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "a demanded tool call and"),
        ({"tool_choice": "sometimes"}, "tool_choice must be"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}}}, "needs a mode"),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": []}}]},
                }
            },
            "tool_choice names no tool",
        ),
        ({"tool_choice": "required", "tools": []}, "there are no tools"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]}, "parameters"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ],
)
async def test_bad_tools(say: Callable[..., Any], fields: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await say("x", **fields)


async def test_a_model_without_a_known_format_takes_no_tools(backend: Backend) -> None:
    with pytest.raises(openai.BadRequestError, match="--tool-call-parser"):
        await backend.sdk.chat.completions.create(model=MODEL, messages=HI, tools=TOOLS)


async def test_parse_function_call(backend: Backend) -> None:
    body = {"text": f"Look: {CALL}", "tools": TOOLS, "tool_call_parser": "hermes"}
    answer = (await backend.http.post("/parse_function_call", json=body)).json()
    assert answer["normal_text"] == "Look:"
    (call,) = answer["calls"]
    assert (call["tool_index"], call["name"], json.loads(call["parameters"])) == (0, "weather", {"city": "Zürich"})


async def test_separate_reasoning(backend: Backend) -> None:
    body = {"text": "<think>hm</think>yes", "reasoning_parser": "qwen3"}
    answer = await backend.http.post("/separate_reasoning", json=body)
    assert answer.json() == {"reasoning_text": "hm", "text": "yes"}


@pytest.mark.parametrize("path", ["/parse_function_call", "/separate_reasoning"])
async def test_parsers_must_be_known(backend: Backend, path: str) -> None:
    assert (await backend.http.post(path, json={"text": "x"})).status_code == 400
    body = {"text": "x", "tool_call_parser": "nope", "reasoning_parser": "nope"}
    answer = await backend.http.post(path, json=body)
    assert answer.status_code == 400
    assert "'nope'" in answer.text
