"""What placement reads from a body."""

from __future__ import annotations

import json

import pytest

from router.body import Facts, Form, read_facts
from router.errors import Refusal
from router.prompt_text import PromptText


def facts(path: str, body: dict, headers: dict[str, str] | None = None, render=None) -> Facts:
    return read_facts(path, headers or {}, json.dumps(body).encode(), PromptText(render))


def test_plain_prompts_are_their_own_text():
    assert facts("/v1/completions", {"prompt": "héllo"}).route.text == "héllo".encode()
    assert facts("/generate", {"text": "hello"}).route.text == b"hello"


def test_a_batch_is_all_its_prompts_in_a_row():
    assert facts("/v1/completions", {"prompt": ["a", "b"]}).route.text == b"a\xffb"


def test_no_text_is_taken_for_a_batch_or_for_token_ids():
    batch, single = (facts("/v1/completions", {"prompt": prompt}) for prompt in (["a", "b"], "a\0b"))
    assert batch.route.text != single.route.text
    ids = facts("/generate", {"input_ids": [98]})
    texts = [facts("/generate", {"text": mark + "b\0\0\0"}) for mark in "\x06\xfe\ufffe"]
    assert ids.form is Form.IDS
    assert [read.form for read in texts] == [Form.PLAIN] * 3
    assert ids.route.text not in [read.route.text for read in texts]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"text": "a"}, 1),
        ({"text": ["a"]}, 1),
        ({"text": ["a", "b", "c"]}, 3),
        ({"input_ids": [1, 2, 3]}, 1),
        ({"input_ids": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2]}, 1),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": []}, 1),
        ({"messages": [{"role": "user", "content": "a"}]}, 1),
    ],
)
def test_prompts_are_counted(body, count):
    assert facts("/generate", body).prompts == count


def test_token_ids_are_counted_exactly_and_share_prefixes():
    short = facts("/generate", {"input_ids": [1, 2, 3]}).route
    longer = facts("/v1/completions", {"prompt": [1, 2, 3, 70000]}).route
    assert (short.prompt_tokens, longer.prompt_tokens) == (3, 4)
    assert longer.text.startswith(short.text)
    assert facts("/generate", {"input_ids": [[1, 2], [3]]}).route.prompt_tokens == 3


def test_model_and_streaming_are_read_only_when_they_have_their_type():
    read = facts("/v1/completions", {"model": "m", "stream": True, "prompt": "x"})
    assert (read.model, read.stream, read.inference) == ("m", True, True)
    read = facts("/v1/completions", {"model": 5, "stream": 1, "prompt": "x"})
    assert (read.model, read.stream) == ("", False)


def test_adapters_and_salts_separate_namespaces():
    spaces = {
        facts("/generate", {"text": "x", **fields}).route.namespace
        for fields in (
            {},
            {"lora_path": "a"},
            {"cache_salt": "a"},
            {"extra_key": "a"},
            {"lora_path": "a", "extra_key": "a"},
        )
    }
    assert len(spaces) == 5


@pytest.mark.parametrize(
    ("headers", "body", "key"),
    [
        ({"x-smg-routing-key": "h"}, {"routing_key": "b"}, "h"),
        ({"x-session-id": "s"}, {}, "s"),
        ({}, {"routing_key": "b"}, "b"),
        ({}, {"session_id": "c"}, "c"),
        ({}, {}, ""),
    ],
)
def test_the_session_key_comes_from_a_header_or_the_body(headers, body, key):
    assert facts("/generate", {"text": "x", **body}, headers).route.routing_key == key


def test_a_body_of_another_route_is_not_looked_at():
    read = read_facts("/upload", {}, b"\x00 not json", PromptText())
    assert (read.inference, read.route.text) == (False, b"")


def test_a_packed_body_is_routed_without_its_text():
    read = read_facts("/generate", {"content-encoding": "gzip"}, b"\x1f\x8b", PromptText())
    assert (read.inference, read.route.text) == (True, b"")


def test_what_is_no_json_object_is_refused_with_the_place():
    with pytest.raises(Refusal, match="byte 13") as caught:
        read_facts("/generate", {}, b'{"text": "x",}', PromptText())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"prompt": "a\xff"}', "not UTF-8: byte 13 is 0xff"),
        (b'{"text": ["a", "\xc3("]}', "not UTF-8: byte 16 is 0xc3"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "not UTF-8"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"a": "\xff"}]}', "not UTF-8"),
        (b'{"input": "\xff"}', "not UTF-8"),
        (b'{"model": "\xff", "prompt": "x"}', "not UTF-8"),
        (b'{"prompt": 1e999}', "out of range"),
        (b'{"input_ids": [1], "prompt": ["a", 1e999]}', "out of range"),
        (b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deeply"),
    ],
)
def test_a_field_that_cannot_be_read_is_refused_wherever_it_is(body, said):
    with pytest.raises(Refusal, match=said) as caught:
        read_facts("/v1/completions", {}, body, PromptText())
    assert caught.value.status == 400


def test_the_models_own_template_is_used_when_the_router_has_it():
    def render(messages, tools, continue_final_message, **arguments):
        return f"{messages[0]['content']}|{tools}|{continue_final_message}|{arguments}"

    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "chat_template_kwargs": {"thinking": False},
        "continue_final_message": True,
    }
    assert facts("/v1/chat/completions", body, render=render).route.text == b"hi|None|True|{'thinking': False}"


def test_a_conversation_that_the_template_refuses_is_placed_by_its_plain_form():
    def render(messages, **_more):
        raise ValueError("roles must alternate")

    body = {"messages": [{"role": "user", "content": "hi"}]}
    refused, plain = (facts("/v1/chat/completions", body, render=one) for one in (render, None))
    assert (refused.route.text, refused.form) == (plain.route.text, plain.form)


def test_bytes_per_token_follow_what_answers_tell():
    prompt_text = PromptText()
    for _ in range(100):
        prompt_text.learn("m", text_bytes=30_000, prompt_tokens=10_000)
    assert prompt_text.tokens("m", b"x" * 3000) == pytest.approx(1000, rel=0.01)
    assert prompt_text.tokens("unseen", b"x" * 4000) == 1000


def test_a_short_answer_teaches_little():
    """The template's own words are most of its prompt."""
    prompt_text = PromptText()
    prompt_text.learn("m", text_bytes=40, prompt_tokens=40)
    assert prompt_text.tokens("m", b"x" * 4000) == pytest.approx(1000, rel=0.05)
