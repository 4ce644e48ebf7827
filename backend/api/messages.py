"""``/v1/messages``: Anthropic's way to ask for the assistant's next message, whole or as named events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web

from backend.api.answers import answer_stream, answer_whole
from backend.api.blocks import Block, Blocks, Change, Kind, Step, blocks_of
from backend.api.chat_request import ChatRequest, chat_prompt, start_chat
from backend.api.context import CONTEXT
from backend.api.errors import json_response
from backend.api.event_style import MESSAGES_EVENTS
from backend.api.messages_request import CHAT_TO_MESSAGES, MESSAGES_NOT_YET, MessagesRequest
from backend.api.openai import check_model
from backend.api.parsed_answers import ParsedAnswers
from backend.api.sampling_defaults import with_defaults
from backend.api.schema import parse_json, refuse_not_yet
from backend.frontend.errors import RequestError
from backend.frontend.request import RequestState


async def messages(request: web.Request) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, MESSAGES_NOT_YET)
    body = MessagesRequest.read(data)
    check_model(body.model, serving.model)
    chat = ChatRequest.read(with_defaults(body.to_chat(), serving.sampling_defaults))
    answer_id = f"msg_{uuid.uuid4().hex}"
    constraint = body.constraint()
    try:
        generation, answers = await start_chat(serving, chat, answer_id, constraint)
    except RequestError as error:
        raise error.renamed(CHAT_TO_MESSAGES) from None
    answer = _Message(answer_id, serving.model.name, answers)
    if body.stream:
        return await answer_stream(request, generation, answer.events, answer.last_events, style=MESSAGES_EVENTS)
    return await answer_whole(request, generation, answer.whole)


async def count_tokens(request: web.Request) -> web.Response:
    """``/v1/messages/count_tokens``: how long the prompt of such a request is."""
    serving = request.app[CONTEXT].serving()
    body = MessagesRequest.read({"max_tokens": 1, **parse_json(await request.read())})
    check_model(body.model, serving.model)
    prompt = chat_prompt(serving, ChatRequest.read(body.to_chat()))
    return json_response({"input_tokens": len(await serving.frontend.tokenize(prompt))})


class _Message:
    """Builds the bodies of one call."""

    def __init__(self, answer_id: str, model: str, answers: ParsedAnswers) -> None:
        self._id = answer_id
        self._model = model
        self._answers = answers
        self._blocks = Blocks()

    def whole(self, states: list[RequestState]) -> dict[str, Any]:
        (state,) = states
        content = [_content_block(block) for block in blocks_of(self._answers.take(state))]
        return {**self._head(state), "content": content, **self._ending(state), "usage": _usage(state)}

    def events(self, moved: list[RequestState]) -> Iterable[dict[str, Any]]:
        for state in moved:
            if not self._answers.begun(state):
                empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
                usage = {**_usage(state), "output_tokens": 0}
                yield {"type": "message_start", "message": {**self._head(state), **empty, "usage": usage}}
            for change in self._blocks.push(self._answers.take(state)):
                yield _event(change)

    def last_events(self, states: list[RequestState]) -> Iterator[dict[str, Any]]:
        for change in self._blocks.close():
            yield _event(change)
        (state,) = states
        yield {"type": "message_delta", "delta": self._ending(state), "usage": _usage(state)}
        yield {"type": "message_stop"}

    def _head(self, state: RequestState) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model}

    def _ending(self, state: RequestState) -> dict[str, Any]:
        reason, sequence = "end_turn", None
        if state.finish is not None and state.finish.kind != "stop":  # no other one says that it is not whole
            reason = "max_tokens"
        elif self._answers.calls(state):
            reason = "tool_use"
        elif state.finish is not None and isinstance(state.finish.matched, str):
            reason, sequence = "stop_sequence", state.finish.matched
        return {"stop_reason": reason, "stop_sequence": sequence}


def _usage(state: RequestState) -> dict[str, int]:
    """Anthropic counts cached tokens beside the others."""
    return {
        "input_tokens": state.prompt_tokens - state.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": state.cached_tokens,
        "output_tokens": state.completion_tokens,
    }


def _content_block(block: Block) -> dict[str, Any]:
    if block.kind is Kind.REASONING:
        return {"type": "thinking", "thinking": block.text, "signature": ""}
    if block.call is not None:
        arguments = json.loads(block.text) if block.text else {}
        return {"type": "tool_use", "id": block.call.id, "name": block.call.name, "input": arguments}
    return {"type": "text", "text": block.text}


def _event(change: Change) -> dict[str, Any]:
    block = change.block
    if change.step is Step.OPEN:
        return {"type": "content_block_start", "index": block.index, "content_block": _content_block(block)}
    if change.step is Step.CLOSE:
        return {"type": "content_block_stop", "index": block.index}
    names = {
        Kind.REASONING: ("thinking_delta", "thinking"),
        Kind.TEXT: ("text_delta", "text"),
        Kind.CALL: ("input_json_delta", "partial_json"),
    }
    kind, field = names[block.kind]
    return {"type": "content_block_delta", "index": block.index, "delta": {"type": kind, field: change.delta}}
