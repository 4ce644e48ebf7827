"""Each tool-call format: what it reads, what it leaves alone, and that the cut of a stream does not matter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.parsers import TOOL_PARSERS, Parsed, make_parser
from backend.api.parsers.events import join

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "hourly": {"type": "boolean"},
                "tags": {"type": "array"},
                "note": {"type": ["string", "null"]},
            },
        },
    },
}
CITY = {"city": "Zürich", "days": 3}
SECOND = {"city": "Oslo", "tags": ["a", {"b": None}]}
BEGIN, END, SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
DS_ALL, DS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def hermes(arguments: dict) -> str:
    return f'<tool_call>\n{{"name": "weather", "arguments": {dumps(arguments)}}}\n</tool_call>'


def coder(arguments: dict) -> str:
    lines = "".join(f"<parameter={key}>\n{_bare(value)}\n</parameter>\n" for key, value in arguments.items())
    return f"<tool_call>\n<function=weather>\n{lines}</function>\n</tool_call>"


def glm(arguments: dict) -> str:
    lines = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{_bare(value)}</arg_value>\n" for key, value in arguments.items()
    )
    return f"<tool_call>weather\n{lines}</tool_call>"


def dsml(arguments: dict) -> str:
    lines = "".join(
        f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">{_bare(value)}'
        "</｜DSML｜parameter>\n"
        for key, value in arguments.items()
    )
    return f'<｜DSML｜invoke name="weather">\n{lines}</｜DSML｜invoke>\n'


def kimi(arguments: dict) -> str:
    call = f"functions.weather:0<|tool_call_argument_begin|>{dumps(arguments)}"
    return f"<|tool_call_begin|>{call}<|tool_call_end|>"


def gemma(arguments: dict) -> str:
    return f"<|tool_call>call:weather{_gemma(arguments)}<tool_call|>"


def _gemma(value: object) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_gemma(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_gemma, value)) + "]"
    return dumps(value)


def _bare(value: object) -> str:
    return value if isinstance(value, str) else dumps(value)


def harmony(arguments: dict) -> str:
    return (
        f"<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{dumps(arguments)}"
    )


def llama(arguments: dict) -> str:
    return dumps({"name": "weather", "parameters": arguments})


def pythonic(arguments: dict) -> str:
    return "weather(" + ", ".join(f"{key}={value!r}" for key, value in arguments.items()) + ")"


# format: (text of two calls, of one call)
TWO_CALLS = {
    "hermes": hermes(CITY) + "\n" + hermes(SECOND),
    "qwen3_coder": coder(CITY) + "\n" + coder(SECOND),
    "glm": glm(CITY) + "\n" + glm(SECOND),
    "deepseekv3": DS_ALL
    + "".join(f"{BEGIN}function{SEP}weather\n```json\n{dumps(each)}\n```{END}\n" for each in (CITY, SECOND))
    + DS_END,
    "deepseekv31": DS_ALL + "".join(f"{BEGIN}weather{SEP}{dumps(each)}{END}" for each in (CITY, SECOND)) + DS_END,
    "deepseekv32": f"<｜DSML｜function_calls>\n{dsml(CITY)}{dsml(SECOND)}</｜DSML｜function_calls>",
    "kimi_k2": f"<|tool_calls_section_begin|>{kimi(CITY)} {kimi(SECOND)}<|tool_calls_section_end|>",
    "gemma4": gemma(CITY) + gemma(SECOND),
    "mistral": f"[TOOL_CALLS]weather[ARGS]{dumps(CITY)}[TOOL_CALLS]weather[CALL_ID]abcDEF123[ARGS]{dumps(SECOND)}",
    "llama3": llama(CITY) + "; " + llama(SECOND),
    "pythonic": f"[{pythonic(CITY)}, {pythonic(SECOND)}]",
    "gpt-oss": harmony(CITY) + "<|call|>" + harmony(SECOND),
}
ANYWHERE = sorted(set(TWO_CALLS) - {"llama3", "pythonic"})  # formats whose calls may follow text
PLAIN = ["Hello!", " two  spaces \n", "a < b", '{"json": [1, 2]}', "[1, 2]", "[x]", "<tool", "<|", "é😀\n\n"]


def parse(name: str, *pieces: str, truncated: bool = False) -> Parsed:
    parser = make_parser(None, name, tools=[WEATHER])
    return join([*map(parser.push, pieces), parser.finish(truncated)])


def calls(parsed: Parsed) -> list[tuple[str, dict]]:
    return [(call.name, json.loads(call.arguments)) for call in parsed.calls]


@pytest.mark.parametrize("name", sorted(TWO_CALLS))
def test_two_calls(name: str) -> None:
    parsed = parse(name, TWO_CALLS[name])
    assert calls(parsed) == [("weather", CITY), ("weather", SECOND)]
    assert parsed.content == ""


@pytest.mark.parametrize("name", sorted(TWO_CALLS))
def test_a_call_leaves_as_soon_as_it_is_complete(name: str) -> None:
    parser = make_parser(None, name, tools=[WEATHER])
    seen = [bool(parser.push(character).calls) for character in TWO_CALLS[name]]
    first = seen.index(True)
    assert first < len(seen) - 1 or name == "pythonic"


@pytest.mark.parametrize("name", ANYWHERE)
def test_text_before_calls_is_content(name: str) -> None:
    text = "Let me look."
    if name == "gpt-oss":
        text = f"<|channel|>final<|message|>{text}<|end|>"
    parsed = parse(name, text + TWO_CALLS[name])
    assert (parsed.content, len(parsed.calls)) == ("Let me look.", 2)


@pytest.mark.parametrize("name", sorted(TWO_CALLS))
@pytest.mark.parametrize("text", PLAIN)
def test_text_without_calls_is_not_touched(name: str, text: str) -> None:
    assert parse(name, text) == Parsed(content=text)


@pytest.mark.parametrize("name", sorted(TWO_CALLS))
def test_a_call_that_was_cut_off_is_never_a_call(name: str) -> None:
    text = TWO_CALLS[name]
    for end in range(len(text)):
        parsed = parse(name, text[:end], truncated=True)
        assert calls(parsed) == [("weather", CITY), ("weather", SECOND)][: len(parsed.calls)]


@pytest.mark.parametrize("name", sorted(set(TOOL_PARSERS) - {"gpt-oss"}))
@settings(deadline=None)  # the machine may be busy
@given(data=st.data())
def test_the_cut_of_a_stream_does_not_matter(name: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(_fragments(name)), max_size=8)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    truncated = data.draw(st.booleans())
    whole = parse(name, text, truncated=truncated)
    assert parse(name, *pieces, truncated=truncated) == whole
    assert parse(name, *text, truncated=truncated) == whole


@settings(deadline=None)  # the machine may be busy
@given(data=st.data())
def test_the_cut_of_a_harmony_stream_does_not_matter(data: st.DataObject) -> None:
    test_the_cut_of_a_stream_does_not_matter.hypothesis.inner_test("gpt-oss", data)


def _fragments(name: str) -> list[str]:
    """Whole calls, their halves and tags, and ordinary text: what a confused model might write."""
    text = next((TWO_CALLS[each] for each in (name, _SIBLINGS.get(name, "hermes")) if each in TWO_CALLS), "")
    tags = [tag for tag in text.replace(">", ">\0").replace("<", "\0<").split("\0") if tag]
    return [text, text[: len(text) // 2], text[len(text) // 2 :], *tags, *PLAIN, " ", "\n", ";", "{", "}", '"', "]"]


_SIBLINGS = {"glm45": "glm", "glm47": "glm", "deepseekv4": "deepseekv32"}


def test_values_without_types_follow_the_schema() -> None:
    for name, write in (("qwen3_coder", coder), ("glm", glm)):
        given_text = {"city": "12", "days": "12", "hourly": "True", "tags": "[1]", "note": "null", "other": "x y"}
        (call,) = calls(parse(name, write(given_text)))
        assert call[1] == {"city": "12", "days": 12, "hourly": True, "tags": [1], "note": None, "other": "x y"}


def test_markers_inside_arguments_are_only_text() -> None:
    text = "</tool_call> </parameter> </arg_value> <|tool_call_end|> [TOOL_CALLS] <tool_call|>"
    arguments = {"city": text}
    for name, write in (("hermes", hermes), ("qwen3_coder", coder), ("glm", glm), ("kimi_k2", kimi), ("gemma4", gemma)):
        assert calls(parse(name, write(arguments))) == [("weather", arguments)]


def test_what_only_looks_like_a_call_stays_in_the_answer() -> None:
    for text in (
        "<tool_call>not json</tool_call>",
        '<tool_call>{"no": "name"}</tool_call>',
        "<tool_call>{]</tool_call>",
    ):
        assert parse("hermes", text) == Parsed(content=text)
    assert parse("mistral", "[TOOL_CALLS] not json").calls == ()
    assert parse("pythonic", "[f(1, **x)]") == Parsed(content="[f(1, **x)]")


def test_kimis_ids_are_kept() -> None:
    assert parse("kimi_k2", TWO_CALLS["kimi_k2"]).calls[0].id == "functions.weather:0"


def test_mistral_gets_ids_that_its_templates_take() -> None:
    parser = make_parser(None, "mistral")
    assert all(len(each) == 9 and each.isalnum() for each in (parser.call_id(), parser.call_id()))
    assert parse("mistral", TWO_CALLS["mistral"]).calls[1].id == "abcDEF123"


def test_a_mistral_list_that_was_cut_off_gives_its_complete_calls() -> None:
    text = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "A"}}, {"name": "weather", "argu'
    assert calls(parse("mistral", text, truncated=True)) == [("weather", {"city": "A"})]


def test_words_to_a_tool_of_the_models_own_are_hidden() -> None:
    text = "<|channel|>commentary to=python<|message|>print(1)<|call|><|start|>assistant<|channel|>final<|message|>Hi"
    assert parse("gpt-oss", text) == Parsed(content="Hi")
