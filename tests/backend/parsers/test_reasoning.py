"""Reasoning before the answer, in every format and however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.parsers import (
    REASONING_PARSERS,
    TOOL_PARSERS,
    Parsed,
    make_parser,
    reasoning_parser_for,
    tool_parser_for,
)
from backend.api.parsers.events import join
from backend.api.parsers.reasoning import REASONING_FORMATS
from backend.api.parsers.registry import REASONING_ALIASES
from backend.flags.server import parser_names

NAMES = sorted(set(REASONING_PARSERS) - {"gpt-oss"})


def parse(name: str, *pieces: str, prompt_end: str = "", tool_call: str | None = None) -> Parsed:
    parser = make_parser(name, tool_call, prompt_end=prompt_end)
    return join([*map(parser.push, pieces), parser.finish()])


def markers(name: str) -> tuple[str, str]:
    found = REASONING_FORMATS[REASONING_ALIASES.get(name, name)]
    return found.start, found.end


def test_the_flags_name_every_parser() -> None:
    assert parser_names.TOOL_CALL_PARSERS == TOOL_PARSERS
    assert parser_names.REASONING_PARSERS == REASONING_PARSERS


@pytest.mark.parametrize("name", NAMES)
def test_both_markers(name: str) -> None:
    start, end = markers(name)
    assert parse(name, f"{start}\nlet me see\n{end}\n\nIt is 4.\n") == Parsed("let me see", "It is 4.\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_may_have_opened_it(name: str) -> None:
    start, end = markers(name)
    assert parse(name, f"hm\n{end}yes", prompt_end=f"assistant\n{start}\n") == Parsed("hm", "yes")
    assert parse(name, f"{start}hm{end}yes", prompt_end=f"assistant\n{start}\n") == Parsed("hm", "yes")


@pytest.mark.parametrize("name", NAMES)
def test_without_markers_all_is_the_answer(name: str) -> None:
    start, end = markers(name)
    assert parse(name, " It is 4.") == Parsed(content=" It is 4.")
    assert parse(name, f"It is {start} 4.", prompt_end=f"{start}\n\n{end}\n\n") == Parsed(content=f"It is {start} 4.")


@pytest.mark.parametrize("name", NAMES)
def test_a_reasoning_without_end_is_all_there_is(name: str) -> None:
    assert parse(name, f"{markers(name)[0]}so far ") == Parsed("so far")


def test_a_call_ends_a_reasoning_that_was_left_open() -> None:
    text = '<think>I call.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    parsed = parse("qwen3", text, tool_call="hermes")
    assert (parsed.reasoning, parsed.content, [call.name for call in parsed.calls]) == ("I call.", "", ["f"])


def test_harmony_channels() -> None:
    text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>"
    assert parse("gpt-oss", text) == Parsed("hm", "It is 4.")


@settings(deadline=None)  # the machine may be busy
@given(data=st.data())
@pytest.mark.parametrize("name", sorted(REASONING_FORMATS))
def test_the_cut_of_a_stream_does_not_matter(name: str, data: st.DataObject) -> None:
    start, end = markers(name)
    words = [start, end, start[:3], end[:4], "hm", " ", "\n", "4", "<", "<tool_call>"]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=10)))
    prompt_end = data.draw(st.sampled_from(["", start, f"{start}\n"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(name, *pieces, prompt_end=prompt_end) == parse(name, text, prompt_end=prompt_end)


@pytest.mark.parametrize(
    ("template", "tools", "reasoning"),
    [
        ('{{ tools }}<tool_call>{"name": ...}</tool_call>', "hermes", None),
        ("{{ tools }}<tool_call><invoke>...</tool_call>", None, None),
        ("<tool_call><function=x><parameter=y> <think>", "qwen3_coder", "qwen3"),
        ("<tool_call>{name}<arg_key> <think>", "glm", "glm"),
        ('<tool_call> <tool_calls>[{"name": ...}]</tool_calls>', None, None),
        ("<think> only", None, "deepseek-r1"),
        ("<｜tool▁calls▁begin｜>", "deepseekv3", None),
        ("[TOOL_CALLS] [THINK]", "mistral", "mistral"),
        ("<|start|>assistant<|channel|>analysis <|channel|>commentary json", "gpt-oss", "gpt-oss"),
        ("plain", None, None),
    ],
)
def test_the_choice_by_template(template: str, tools: str | None, reasoning: str | None) -> None:
    assert (tool_parser_for(template), reasoning_parser_for(template)) == (tools, reasoning)
