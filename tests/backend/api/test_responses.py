"""/v1/responses, by the openai SDK. The fake model says what the test writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from backend.api.parsers import ParserChoice
from backend.api.responses_request import ResponsesRequest
from tests.backend.api.conftest import MODEL, Backend
from tests.backend.byte_tokenizer import EOS, ByteTokenizer

TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
SAID = f"<think>\nhm\n</think>\n\nLook:\n{CALL}"


@pytest.fixture
def says(backend: Backend) -> Callable[[str], None]:
    """Decides what the model answers."""
    assert backend.context.loaded is not None
    backend.context.loaded = dataclasses.replace(backend.context.loaded, parsers=ParserChoice("qwen3", "hermes"))

    def set_answer(text: str) -> None:
        ids = [*ByteTokenizer().encode(text), EOS]
        backend.frontend.intake.tokenize = lambda *_: ids

    return set_answer


async def test_an_error_names_the_field_that_the_client_sent(backend: Backend) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await backend.sdk.responses.create(model=MODEL, input="hi", max_output_tokens=10**6)
    assert error.value.param == "max_output_tokens"
    assert "max_completion_tokens" not in error.value.message
    assert "(max_output_tokens)" in error.value.message


async def test_text(backend: Backend) -> None:
    answer = await backend.sdk.responses.create(model=MODEL, input="hi", max_output_tokens=8)
    assert (answer.object, answer.output_text, answer.model) == ("response", "user: hi", MODEL)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (20, 8, 28)


async def test_reasoning_text_and_a_call(backend: Backend, says: Callable[[str], None]) -> None:
    says(SAID)
    answer = await backend.sdk.responses.create(model=MODEL, input="hi", tools=TOOLS)
    reasoning, message, call = answer.output
    assert (answer.status, reasoning.type, reasoning.content[0].text) == ("completed", "reasoning", "hm")
    assert (message.type, answer.output_text) == ("message", "Look:")
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Zürich"})


async def test_a_stream_says_the_same(backend: Backend, says: Callable[[str], None]) -> None:
    says(SAID)
    stream = await backend.sdk.responses.create(model=MODEL, input="hi", tools=TOOLS, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    reasoning, message, call = events[-1].response.output
    assert (reasoning.content[0].text, message.content[0].text) == ("hm", "Look:")
    assert json.loads(call.arguments) == {"city": "Zürich"}
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "Look:"
    added = [event.item.id for event in events if event.type == "response.output_item.added"]
    done = [event.item.id for event in events if event.type == "response.output_item.done"]
    assert added == done == [item.id for item in events[-1].response.output]


async def test_the_sdk_puts_a_stream_together(backend: Backend, says: Callable[[str], None]) -> None:
    says(SAID)
    async with backend.sdk.responses.stream(model=MODEL, input="hi", tools=TOOLS) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]


def test_items_become_chat_messages() -> None:
    body = ResponsesRequest.read(
        {
            "instructions": "Be brief.",
            "reasoning": {"effort": "low"},
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look"}]},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "20"},
                {"role": "developer", "content": [{"type": "refusal", "refusal": "More."}]},
            ],
        }
    )
    chat = body.to_chat()
    system, user, assistant, tool, developer = chat["messages"]
    assert (system["content"], user["content"], chat["reasoning_effort"]) == ("Be brief.", "a", "low")
    assert (assistant["reasoning_content"], assistant["content"]) == ("hm", "Look")
    assert assistant["tool_calls"][0]["id"] == "c1"
    assert tool == {"role": "tool", "tool_call_id": "c1", "content": "20"}
    assert developer == {"role": "system", "content": "More."}
    assert chat["tool_choice"]["allowed_tools"]["tools"] == [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id: no response is stored here"),
        ({"conversation": {"id": "c"}}, "conversation: no response is stored here"),
        ({"input": []}, "input: it is empty"),
        ({"tools": [{"type": "function"}]}, "tools.0.name must be a name, got None"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "x"}]}}, "names no tool"),
        ({"background": True}, "background is not supported yet"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type must be"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format of type json_schema needs"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type is not supported yet"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content.0"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input.0.role"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": 7}}, "reasoning.effort:"),
    ],
)
async def test_bad_requests(backend: Backend, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await backend.sdk.responses.create(**{"model": MODEL, "input": "hi", **fields})
