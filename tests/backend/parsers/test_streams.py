"""From bytes to parsed answers, through every stage of a stream: the cut does not matter, wherever it falls.

Tokens are single bytes here, so that a cut may fall inside a character, a marker, a stop string or a call.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.parsers import REASONING_PARSERS, TOOL_PARSERS, Parsed, make_parser
from backend.api.parsers.events import join
from backend.api.parsers.registry import DEMANDED, reasoning_markers
from backend.frontend.byte_detokenizer import ByteDetokenizer
from backend.frontend.stop import StopMatcher
from backend.frontend.text import TextStream
from tests.backend.parsers.test_tool_calls import PLAIN, TWO_CALLS, WEATHER

BYTES = [bytes([value]) for value in range(256)]
WORDS = ["日本語", "👩‍👩‍👧", "é", " ", "\n\n", "STOP", "ST", "so", "<", '{"a": 1}']
DEMANDED_CALLS = '[{"name": "weather", "parameters": {"city": "日本"}}, {"name": "weather", "parameters": {}}]'


def answer(
    chunks: Sequence[bytes], reasoning: str | None, tool_call: str | None, stops: list[str], prompt_end: str = ""
) -> Parsed:
    """What a client reads of ``chunks``."""
    stream = TextStream(ByteDetokenizer(BYTES), StopMatcher(stops, keep=False) if stops else None)
    parser = make_parser(reasoning, tool_call, tools=[WEATHER], prompt_end=prompt_end)
    pieces = []
    for chunk in chunks:
        text, _ = stream.push(list(chunk))
        pieces.append(parser.push(text))
        if stream.matched is not None:
            break
    if stream.matched is None:
        pieces.append(parser.push(stream.finish()))
    return join([*pieces, parser.finish()])


def cut(text: bytes, places: list[int]) -> list[bytes]:
    places = sorted(place % (len(text) + 1) for place in places)
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def formats() -> st.SearchStrategy[tuple[str | None, str | None]]:
    return st.tuples(
        st.sampled_from([None, *sorted(REASONING_PARSERS)]), st.sampled_from([None, DEMANDED, *sorted(TOOL_PARSERS)])
    )


@settings(deadline=None, max_examples=300)  # the machine may be busy
@given(pair=formats(), data=st.data())
def test_a_streamed_answer_equals_the_whole_one(pair: tuple[str | None, str | None], data: st.DataObject) -> None:
    reasoning, tool_call = pair
    markers = reasoning_markers(reasoning)
    ours = [] if markers is None else [markers.start, markers.end, markers.end[:3]]
    calls = TWO_CALLS.get(tool_call or "", DEMANDED_CALLS if tool_call == DEMANDED else "")
    fragments = [*ours, *WORDS, *PLAIN, calls, calls[: len(calls) // 2], calls[len(calls) // 2 :]]
    text = "".join(data.draw(st.lists(st.sampled_from(fragments), max_size=8))).encode()
    stops = data.draw(st.sampled_from([[], ["STOP"], ["語", "so"]]))
    prompt_end = data.draw(st.sampled_from(["", *ours[:1]]))
    whole = answer([text], reasoning, tool_call, stops, prompt_end)
    chunks = cut(text, data.draw(st.lists(st.integers(0, 10_000), max_size=20)))
    assert answer(chunks, reasoning, tool_call, stops, prompt_end) == whole
    assert answer([text[i : i + 1] for i in range(len(text))], reasoning, tool_call, stops, prompt_end) == whole


@settings(deadline=None, max_examples=150)
@given(pair=formats(), data=st.data())
def test_a_stop_string_never_leaks(pair: tuple[str | None, str | None], data: st.DataObject) -> None:
    words = st.lists(st.sampled_from([*WORDS, "STOP"]), max_size=8)
    text = "".join(data.draw(words)).encode()
    chunks = cut(text, data.draw(st.lists(st.integers(0, 10_000), max_size=20)))
    parsed = answer(chunks, *pair, ["STOP"])
    assert "STOP" not in parsed.content + parsed.reasoning
    assert "STOP" not in "".join(call.arguments for call in parsed.calls)


@pytest.mark.parametrize("tool_call", [None, *sorted(set(TOOL_PARSERS) - {"gpt-oss"})])
@pytest.mark.parametrize("reasoning", [None, "qwen3", "mistral"])
def test_characters_are_whole_at_every_cut(reasoning: str | None, tool_call: str | None) -> None:
    text = "日本語 👩‍👩‍👧 é 🇨🇭".encode()
    for place in range(len(text) + 1):
        parsed = answer([text[:place], text[place:]], reasoning, tool_call, ["never said"])
        assert parsed == Parsed(content=text.decode())


@pytest.mark.parametrize("name", sorted(set(REASONING_PARSERS) - {"gpt-oss"}))
def test_reasoning_is_given_out_as_it_comes(name: str) -> None:
    markers = reasoning_markers(name)
    assert markers is not None
    parser = make_parser(name, None)
    assert parser.push(f"{markers.start}let me") == Parsed("let me")
    assert parser.push(f" see{markers.end[:2]}") == Parsed(" see")
    assert parser.push(f"{markers.end[2:]}Yes") == Parsed(content="Yes")
