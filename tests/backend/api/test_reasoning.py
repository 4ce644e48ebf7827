"""Reasoning beside content and calls: streamed and whole, separated or not, in one piece or as it comes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from backend.api.parsed_answers import ParsedAnswers
from backend.api.parsers import ParserChoice, make_parser
from backend.api.parsers.spans import tokens_between
from backend.frontend.request import RequestState
from backend.sampling_params import SamplingParams
from tests.backend.api.conftest import MODEL, Backend
from tests.backend.api.test_tools import CALL, HI, TOOLS, collect
from tests.backend.byte_tokenizer import EOS, OFFSET, ByteTokenizer

# format: what its models say before the answer, without the marker when the prompt has it
THOUGHTS = {
    "qwen3": "<think>\nlet me 日本\n</think>\n\n",
    "deepseek-r1": "<think>let me 日本</think>",
    "glm": "<think>let me 日本</think>\n",
    "kimi": "<think>let me 日本</think>",
    "mistral": "[THINK]let me 日本[/THINK]",
    "gemma": "<|channel>thought\nlet me 日本<channel|>",
}
HARMONY_THOUGHT = "<|channel|>analysis<|message|>let me 日本<|end|><|start|>assistant<|channel|>final<|message|>"


async def ask(backend: Backend, parsers: ParserChoice, text: str, stream: bool, **fields: Any) -> Any:
    assert backend.context.loaded is not None
    backend.context.loaded = dataclasses.replace(backend.context.loaded, parsers=parsers)
    ids = ByteTokenizer().encode(text)
    extra = {"input_ids": [*ids, EOS], **fields.pop("extra", {})}
    limit = len(ids) + 1
    return await backend.sdk.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=limit, stream=stream, extra_body=extra, **fields
    )


async def said(answer: Any, stream: bool) -> tuple[str, str, list[tuple[str, Any]]]:
    """Reasoning, content and calls."""
    if stream:
        reasoning, content, calls, _ = await collect(answer)
        return reasoning, content, [(call["name"], json.loads(call["arguments"])) for call in calls]
    message = answer.choices[0].message
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    return message.reasoning_content or "", message.content or "", calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("in_one_piece", [False, True])
@pytest.mark.parametrize("name", sorted(THOUGHTS))
async def test_reasoning_and_calls_together(backend: Backend, name: str, in_one_piece: bool, stream: bool) -> None:
    text = f"{THOUGHTS[name]}Yes.\n{CALL}"
    extra = {"stream_reasoning": not in_one_piece}
    answer = await ask(backend, ParserChoice(name, "hermes"), text, stream, tools=TOOLS, extra=extra)
    assert await said(answer, stream) == ("let me 日本", "Yes.", [("weather", {"city": "Zürich"})])


@pytest.mark.parametrize("stream", [False, True])
async def test_harmony_reasoning(backend: Backend, stream: bool) -> None:
    answer = await ask(backend, ParserChoice("gpt-oss", "gpt-oss"), f"{HARMONY_THOUGHT}Yes.", stream)
    assert await said(answer, stream) == ("let me 日本", "Yes.", [])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", sorted(THOUGHTS))
async def test_what_is_not_separated_stays_in_the_content(backend: Backend, name: str, stream: bool) -> None:
    text = f"{THOUGHTS[name]}Yes."
    extra = {"separate_reasoning": False}
    answer = await ask(backend, ParserChoice(name, "hermes"), text, stream, extra=extra)
    assert await said(answer, stream) == ("", text, [])
    answer = await ask(backend, ParserChoice(name, "hermes"), f"{text}\n{CALL}", stream, tools=TOOLS, extra=extra)
    assert await said(answer, stream) == ("", text, [("weather", {"city": "Zürich"})])


async def pieces_of(stream: Any) -> list[str]:
    deltas = [chunk.choices[0].delta async for chunk in stream]
    return [piece for delta in deltas if (piece := getattr(delta, "reasoning_content", None))]


@pytest.mark.parametrize("name", sorted(THOUGHTS))
async def test_reasoning_comes_as_it_is_thought_or_in_one_piece(backend: Backend, name: str) -> None:
    text = f"{THOUGHTS[name]}Yes."
    as_it_comes = await pieces_of(await ask(backend, ParserChoice(name), text, True))
    in_one = await pieces_of(await ask(backend, ParserChoice(name), text, True, extra={"stream_reasoning": False}))
    assert in_one == ["".join(as_it_comes)] == ["let me 日本"]


@pytest.mark.parametrize("thinks", [True, False])
async def test_the_template_decides_whether_the_prompt_opens_the_reasoning(backend: Backend, thinks: bool) -> None:
    """``enable_thinking`` reaches the template; what it opened needs no marker in the answer."""

    class Template:
        def render(self, messages: object, *, enable_thinking: bool = True, **options: Any) -> str:
            return "a" * 20 + ("hm</think>so<think>" if enable_thinking else "so")

    backend.frontend.intake.template = Template()
    answer = await ask(
        backend,
        ParserChoice("qwen3", "hermes"),
        "unused",
        False,
        extra={"input_ids": None, "chat_template_kwargs": {"enable_thinking": thinks}},
    )
    reasoning, content, _ = await said(answer, False)
    assert bool(reasoning) is thinks
    assert content == ("" if thinks else "aaaaaaa")


def test_reasoning_tokens_are_counted_up_to_the_one_that_ends_them() -> None:
    answers = ParsedAnswers(lambda prompt_end: make_parser("qwen3", None), None, reasoning_end=9)
    state = RequestState(uid=1, rid="r", index=0, prompt_ids=[1], sampling=SamplingParams(), created=0.0)
    assert answers.reasoning_tokens(state) == 0
    for text, ids, count in (("<think>hm", [5, 6], 2), ("</think>Yes", [5, 6, 9, 7, 8], 3)):
        state.fresh, state.output_ids = text, ids
        answers.take(state)
        assert answers.reasoning_tokens(state) == count


async def test_usage_tells_the_reasoning_tokens_of_gpt_oss(backend: Backend) -> None:
    thought = "<|channel|>analysis<|message|>hm<|end|>"
    for said, count in (
        (f"{thought}<|start|>assistant<|channel|>final<|message|>Yes.", len(thought)),
        (thought[:-7], 33),
    ):
        answer = await ask(backend, ParserChoice("gpt-oss", "gpt-oss"), said, False)
        assert answer.usage.completion_tokens_details.reasoning_tokens == count


def test_tokens_between() -> None:
    for ids, count in (([], 0), ([1, 2, 5, 3, 6, 1, 2, 7], 7), ([1, 2, 3, 9, 1, 3], 3), ([3, 1], 0)):
        assert tokens_between(ids, [1, 2], [3]) == count


async def test_usage_tells_the_reasoning_tokens(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Bytes are tokens here: the first that might end a reasoning is the bracket of the mark that begins it.
    monkeypatch.setattr(ByteTokenizer, "token_to_id", lambda self, token: ord(token[-1]) + OFFSET)
    text = "<think>\nhm\n</think>\n\nYes."
    whole = await ask(backend, ParserChoice("qwen3", None), text, False)
    assert (whole.usage.reasoning_tokens, whole.usage.completion_tokens_details.reasoning_tokens) == (7, 7)
    extra: dict[str, Any] = {"stream_options": {"include_usage": True}}
    stream = [chunk async for chunk in await ask(backend, ParserChoice("qwen3", None), text, True, **extra)]
    assert stream[-1].usage.completion_tokens_details.reasoning_tokens == 7
    plain = await ask(backend, ParserChoice("qwen3", None), "Yes.", False)
    assert plain.usage.completion_tokens_details.reasoning_tokens == 0
