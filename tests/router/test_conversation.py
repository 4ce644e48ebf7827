"""The stand-in for a chat template: what differs looks different, what grows keeps its beginning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.conversation import conversation_bytes
from router.prompt_text import PromptText

TEXT = st.text(max_size=8) | st.sampled_from(["", "user", "\x02user\x03hi", "\\u0002", '"'])
ROLE = st.sampled_from(["system", "user", "assistant", "tool"])
CONTENT = TEXT | st.none() | st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXT), max_size=2)
MESSAGE = st.builds(lambda role, content: {"role": role, "content": content}, ROLE, CONTENT)
TOOLS = st.lists(st.builds(lambda name: {"type": "function", "function": {"name": name}}, TEXT), max_size=2)


def meaning(messages: list[dict], tools: list) -> tuple:
    """What the serialisation is meant to tell apart: one text part is a string, and no content an empty one."""

    def content(value):
        if isinstance(value, list):
            texts = tuple(part["text"] for part in value)
            return texts if len(texts) > 1 else "".join(texts)
        return value or ""

    return tuple((message["role"], content(message["content"])) for message in messages), str(tools)


@given(st.lists(MESSAGE, max_size=3), TOOLS, st.lists(MESSAGE, max_size=3), TOOLS)
def test_equal_bytes_mean_equal_conversations(one, one_tools, other, other_tools):
    same = conversation_bytes(one, one_tools) == conversation_bytes(other, other_tools)
    assert same == (meaning(one, one_tools) == meaning(other, other_tools))


@given(st.lists(MESSAGE, max_size=4), st.lists(MESSAGE, max_size=2), TOOLS)
def test_a_longer_conversation_begins_with_the_shorter(begin, more, tools):
    assert conversation_bytes(begin + more, tools).startswith(conversation_bytes(begin, tools))


def test_roles_tools_and_tool_calls_are_told_apart():
    hi = {"role": "user", "content": "hi"}
    different = [
        conversation_bytes([hi]),
        conversation_bytes([{"role": "system", "content": "hi"}]),
        conversation_bytes([hi], [{"type": "function", "function": {"name": "f"}}]),
        conversation_bytes([{**hi, "tool_calls": [{"function": {"name": "f"}}]}]),
        conversation_bytes([{**hi, "name": "bob"}]),
        conversation_bytes([hi, {"role": "user", "content": ""}]),
    ]
    assert len(set(different)) == len(different)


def test_keys_in_another_order_and_nulls_make_no_difference():
    one = conversation_bytes([{"role": "user", "content": "hi", "name": None}])
    assert one == conversation_bytes([{"content": "hi", "role": "user"}])


def test_an_image_counts_by_its_hash():
    def image(data: str) -> bytes:
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}}
        return conversation_bytes([{"role": "user", "content": [{"type": "text", "text": "what is this?"}, part]}])

    assert image("A" * 100_000) != image("A" * 99_999 + "B")
    assert len(image("A" * 100_000)) < 200


def test_texts_that_no_template_knows_are_compared_byte_by_byte():
    head = "a long text that many requests begin with. " * 100
    one, other = (PromptText().plain([None, head + end], None) for end in ("one", "other"))
    assert len(one) >= len(head)
    assert one[: len(head)] == other[: len(head)]
    with_instructions = PromptText().plain([head, "hi"], None)
    assert with_instructions[: len(head)] == PromptText().plain([head, "ho"], None)[: len(head)]
    assert PromptText().plain(["a", "b"], None) != PromptText().plain([None, "a", "b"], None)


def test_what_a_tool_answered_counts_as_text_and_its_pictures_by_their_hash():
    def asked(text: str, picture: str) -> bytes:
        inner = [{"type": "text", "text": text}, {"type": "image", "source": {"type": "base64", "data": picture}}]
        result = {"type": "tool_result", "tool_use_id": "1", "content": inner}
        return conversation_bytes([{"role": "user", "content": [result]}])

    text = "what the tool found in the file\n" * 300
    assert len(text) < len(asked(text, "A" * 100_000)) < len(text) + 1000
    assert asked(text, "A" * 100_000) != asked(text, "A" * 99_999 + "B")
    assert len(asked("\u6771\u4eac" * 1000, "A")) > 2000  # not every language has spaces


def test_variables_of_the_template_never_look_equal():
    messages = [{"role": "user", "content": "hi"}]
    plain = PromptText().chat(messages, None, {}, False)
    thinking = PromptText().chat(messages, None, {"enable_thinking": False}, False)
    tools = PromptText().chat(messages, [{"type": "function"}], {}, False)
    going_on = PromptText().chat(messages, None, {}, True)
    assert len({plain, thinking, tools, going_on}) == 4
    assert going_on.startswith(plain)  # they differ at the end only, and so do their tokens
    assert PromptText().chat(messages, None, {"b": 1, "a": 2}, False) == PromptText().chat(
        messages, None, {"a": 2, "b": 1}, False
    )
