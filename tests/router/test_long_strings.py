"""Bodies whose long strings are cut out say the same as those that are read byte by byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.body import Facts, read_facts
from router.errors import Refusal
from router.long_strings import LONG, LongStrings, cut_out
from router.prompt_text import PromptText


def refuse(*_messages: object, **_more: object) -> str:
    raise ValueError("no template takes this")


WHOLE = PromptText(render=refuse)  # a template has to see the conversation, so nothing is cut out of its body
UNITS = st.sampled_from(
    ["a", "word ", "é", "語", "\\n", '\\"', "\\u00e9", "\\\\", "\\ud83d\\ude00", "\\ud800", "\\", '"', "[1, "]
)
BAD = st.sampled_from([b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b'"', b"\\", b"\x7f"])
SIZES = st.sampled_from([0, 3, LONG - 1, LONG, LONG + 1, 2 * LONG])


@st.composite
def strings(draw: st.DrawFn) -> bytes:
    """The inside of a JSON string, long or short, mostly a good one."""
    unit = draw(st.just("word ") | UNITS).encode()
    text = unit * (draw(SIZES) // len(unit))
    if draw(st.integers(0, 9)):
        return text
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(BAD) + text[at:]


SHAPES = st.sampled_from(
    [
        b'{"prompt": "%b"}',
        b'{"text": ["%b", "%b"], "model": "m"}',
        b'{"messages": [{"role": "user", "content": "%b"}], "stream": true}',
        b'{"messages": [{"role": "system", "content": "%b"}, {"content": "%b", "role": "user"}], "lora_path": "%b"}',
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "%b"}, {"url": "%b"}]}]}',
        b'{"messages": [{"role": "user", "content": "%b", "name": "%b"}], "continue_final_message": true}',
        b'{"messages": [{"role": "%b", "content": "a", "content": "%b"}], "tools": [{"%b": 1}]}',
        b'{"messages": ["%b", "%b"], "user": "%b"}',
        b'{"instructions": "%b", "input": [{"role": "user", "content": "%b"}, "%b"]}',
        b'{"%b": 1, "model": "%b", "prompt": "%b"}',
        b'{"prompt": "%b" "%b"}',
        b'{"prompt": [1, 2%b, "%b"]}',
    ]
)  # fmt: skip


def read(body: bytes, prompt_text: PromptText) -> tuple[object, ...]:
    try:
        facts: Facts = read_facts("/v1/chat/completions", {}, body, prompt_text)
    except Refusal as refusal:
        return refusal.status, str(refusal)
    route = facts.route
    named = (route.text, route.prompt_tokens, route.model, route.namespace, route.routing_key, route.target)
    return (*named, facts.model, facts.stream, facts.inference, facts.form, facts.prompts)


@given(SHAPES, st.lists(strings(), min_size=3, max_size=3))
@example(b'{"prompt": "%b"}', [b"a" * LONG, b"", b""])
@example(b'{"prompt": "%b"}', [b"\\" + b"a" * LONG, b"", b""])
@example(b'{"prompt": "%b"}', [b'\\"' + b"a" * LONG + b'\\"', b"", b""])
@settings(max_examples=150)
def test_nobody_can_tell_what_was_cut_out(shape: bytes, texts: list[bytes]) -> None:
    body = shape % tuple(texts[: shape.count(b"%b")])
    assert read(body, PromptText()) == read(body, WHOLE)


@pytest.mark.parametrize("text", ["a" * LONG, "é" * LONG, "語" * LONG])
def test_a_long_text_is_not_read_as_json(text: str) -> None:
    body = json.dumps(
        {"messages": [{"role": "user", "content": text}, {"role": "user", "content": "b"}]}, ensure_ascii=False
    )
    strings = cut_out(body.encode())
    assert strings is not None
    assert len(strings.rest) < 200
    parts = [message["content"].encode() for message in json.loads(strings.rest)["messages"]]
    assert strings.join(parts) == text.encode() + b"b"
    assert not strings.left


@pytest.mark.parametrize("between", ["12345, " * LONG, " " * 2 * LONG])
def test_what_stands_between_strings_is_no_string(between: str) -> None:
    body = f'{{"model": "m", "input_ids": [1, {between}2], "user": "u"}}'.encode()
    assert read(body, PromptText()) == read(body, WHOLE)
    assert read(body, PromptText())[-1] == 1


def test_a_mark_counts_only_where_it_is_a_whole_part() -> None:
    strings = cut_out(b'{"a": "' + b"x" * LONG + b'"}')
    assert isinstance(strings, LongStrings)
    mark = strings.rest[7:-2]
    assert strings.join([mark + b"y", b"[" + mark + b"]"]) == mark + b"y[" + mark + b"]"
    assert strings.left == 1


def test_short_bodies_stay_as_they_are() -> None:
    assert cut_out(b"") is None
    assert cut_out(json.dumps({"prompt": "a" * (LONG - 1), "text": ["b" * 100] * (LONG // 16)}).encode()) is None
