"""/v1/messages, by the anthropic SDK. The fake model says what the test writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from backend.api.messages_request import MessagesRequest
from backend.api.parsers import ParserChoice
from tests.backend.api.conftest import MODEL, Backend, StartBackend
from tests.backend.byte_tokenizer import EOS, ByteTokenizer

anthropic = pytest.importorskip("anthropic")

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
SAID = f"<think>\nhm\n</think>\n\nLook:\n{CALL}"


def client(backend: Backend) -> Any:
    return anthropic.AsyncAnthropic(base_url=backend.url, api_key="none", max_retries=0)


@pytest.fixture
def says(backend: Backend) -> Callable[[str], None]:
    """Decides what the model answers."""
    assert backend.context.loaded is not None
    backend.context.loaded = dataclasses.replace(backend.context.loaded, parsers=ParserChoice("qwen3", "hermes"))

    def set_answer(text: str) -> None:
        ids = [*ByteTokenizer().encode(text), EOS]
        backend.frontend.intake.tokenize = lambda *_: ids

    return set_answer


async def test_text(backend: Backend) -> None:
    answer = await client(backend).messages.create(model=MODEL, max_tokens=8, messages=HI)
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", MODEL, "max_tokens")
    assert [(block.type, block.text) for block in answer.content] == [("text", "user: hi")]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (20, 8)
    again = await client(backend).messages.create(model=MODEL, max_tokens=8, messages=HI)
    assert (again.usage.input_tokens, again.usage.cache_read_input_tokens) == (1, 19)


async def test_thinking_text_and_a_call(backend: Backend, says: Callable[[str], None]) -> None:
    says(SAID)
    answer = await client(backend).messages.create(model=MODEL, max_tokens=200, messages=HI, tools=TOOLS)
    thinking, text, call = answer.content
    assert (thinking.thinking, text.text, answer.stop_reason) == ("hm", "Look:", "tool_use")
    assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": "Zürich"})


async def test_a_stream_says_the_same(backend: Backend, says: Callable[[str], None]) -> None:
    says(SAID)
    async with client(backend).messages.stream(model=MODEL, max_tokens=200, messages=HI, tools=TOOLS) as stream:
        kinds = [event.type async for event in stream]
        answer = await stream.get_final_message()
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3
    thinking, text, call = answer.content
    assert (thinking.thinking, text.text, call.input) == ("hm", "Look:", {"city": "Zürich"})
    assert (answer.stop_reason, answer.usage.output_tokens) == ("tool_use", len(SAID.encode()) + 1)


async def test_why_it_ended(backend: Backend, says: Callable[[str], None]) -> None:
    says("one STOP two")
    ask = client(backend).messages.create
    answer = await ask(model=MODEL, max_tokens=50, messages=HI, stop_sequences=["STOP"])
    assert (answer.stop_reason, answer.stop_sequence, answer.content[0].text) == ("stop_sequence", "STOP", "one ")
    says("done")
    answer = await ask(model=MODEL, max_tokens=50, messages=HI)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)


async def test_count_tokens(backend: Backend) -> None:
    counted = await client(backend).messages.count_tokens(model=MODEL, messages=HI)
    assert counted.input_tokens == 20


def test_a_conversation_with_tools_becomes_chat_messages() -> None:
    body = MessagesRequest.read(
        {
            "max_tokens": 1,
            "system": [{"type": "text", "text": "Be brief."}],
            "thinking": {"type": "disabled"},
            "tools": TOOLS,
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": ""},
                        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "é"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "20"}]},
                        {"type": "text", "text": "and?"},
                    ],
                },
            ],
        }
    )
    chat = body.to_chat()
    system, user, assistant, tool, more = chat["messages"]
    assert (system, user["content"]) == ({"role": "system", "content": "Be brief."}, "a\nb")
    assert (assistant["reasoning_content"], assistant["content"]) == ("hm", "")
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"city": "é"}
    assert tool == {"role": "tool", "tool_call_id": "t1", "content": "20"}
    assert more["content"] == "and?"
    assert chat["tools"][0]["function"]["name"] == "weather"
    assert (chat["parallel_tool_calls"], chat["chat_template_kwargs"]) == (False, {"enable_thinking": False})


@pytest.mark.parametrize("content", ["Be brief.", [{"type": "text", "text": "Be brief."}]])
def test_a_system_turn_may_stand_between_the_others(content: object) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "system", "content": content}, {"role": "user", "content": "b"}]
    chat = MessagesRequest.read({"max_tokens": 1, "messages": turns}).to_chat()
    assert [turn["role"] for turn in chat["messages"]] == ["user", "system", "user"]
    assert chat["messages"][1]["content"] == "Be brief."


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"input_schema": {"type": "object"}}]}, "tools.0.name must be a name, got None"),
        ({"messages": [{"role": "user", "content": []}]}, "none of them says anything"),
        ({"extra_body": {"mcp_servers": [{"type": "url", "url": "http://x", "name": "x"}]}}, "mcp_servers is not"),
        ({"extra_body": {"output_config": {"format": {"type": "xml"}}}}, "output_config.format must be"),
        ({"stop_sequences": [""]}, "stop_sequences must be"),
        (
            {
                "messages": [*HI, {"role": "assistant", "content": "{"}],
                "extra_body": {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
            },
            "output_config.format: an answer that the last message has begun",
        ),
    ],
)
async def test_bad_requests(backend: Backend, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words) as error:
        await client(backend).messages.create(**{"model": MODEL, "max_tokens": 5, "messages": HI, **fields})
    assert error.value.body["error"]["type"] == "invalid_request_error"


async def test_an_unknown_model(backend: Backend) -> None:
    with pytest.raises(anthropic.NotFoundError, match="nope"):
        await client(backend).messages.create(model="nope", max_tokens=5, messages=HI)


async def test_the_key_as_anthropics_clients_send_it(start_backend: StartBackend) -> None:
    async with start_backend(api_key="none") as backend:
        await client(backend).messages.create(model=MODEL, max_tokens=1, messages=HI)
        with pytest.raises(anthropic.AuthenticationError):
            await client(backend).with_options(api_key="wrong").messages.create(model=MODEL, max_tokens=1, messages=HI)


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_the_form_of_an_answer(field: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    asked = {field: {"format": form, "effort": "low"} if field == "output_config" else form}
    constraint = MessagesRequest.read({"max_tokens": 1, "messages": HI, **asked}).constraint()
    assert constraint is not None
    assert (constraint.kind, json.loads(constraint.text)) == ("json_schema", {"type": "object"})


@pytest.mark.parametrize(("content", "begun"), [("Well,", True), ("", False)])
def test_an_answer_that_the_client_began_is_gone_on_with(content: str, begun: bool) -> None:
    turns = [*HI, {"role": "assistant", "content": content}]
    assert MessagesRequest.read({"max_tokens": 1, "messages": turns}).to_chat()["continue_final_message"] == begun
    assert not MessagesRequest.read({"max_tokens": 1, "messages": HI}).to_chat()["continue_final_message"]


def test_strict_tools_stay_strict() -> None:
    tools = [{"name": name, "input_schema": {"type": "object"}, "strict": name == "held"} for name in ("held", "free")]
    chat = MessagesRequest.read({"max_tokens": 1, "messages": HI, "tools": tools}).to_chat()
    assert [tool["function"].get("strict") for tool in chat["tools"]] == [True, None]
