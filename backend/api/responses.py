"""``/v1/responses``: OpenAI's responses API without its memory, whole or as named events."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web

from backend.api.answers import answer_stream, answer_whole
from backend.api.blocks import Block, Blocks, Change, Kind, Step, blocks_of
from backend.api.chat_request import ChatRequest, start_chat
from backend.api.context import CONTEXT
from backend.api.event_style import RESPONSES_EVENTS
from backend.api.openai import check_model
from backend.api.parsed_answers import ParsedAnswers
from backend.api.responses_request import CHAT_TO_RESPONSES, ResponsesRequest
from backend.api.sampling_defaults import with_defaults
from backend.api.schema import parse_json
from backend.frontend.errors import RequestError
from backend.frontend.request import RequestState

Event = dict[str, Any]
_PREFIX = {Kind.REASONING: "rs", Kind.TEXT: "msg", Kind.CALL: "fc"}


async def responses(request: web.Request) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    body = ResponsesRequest.of(data)
    check_model(body.model, serving.model)
    answer_id = f"resp_{uuid.uuid4().hex}"
    constraint = body.constraint()
    try:
        chat = ChatRequest.read(with_defaults(body.to_chat(), serving.sampling_defaults))
        generation, answers = await start_chat(serving, chat, answer_id, constraint)
    except RequestError as error:
        raise error.renamed(CHAT_TO_RESPONSES) from None
    answer = _Response(answer_id, serving.model.name, body, chat, answers)
    if body.stream:
        return await answer_stream(request, generation, answer.events, answer.last_events, style=RESPONSES_EVENTS)
    return await answer_whole(request, generation, answer.whole)


class _Response:
    """Builds the bodies of one call."""

    def __init__(
        self, answer_id: str, model: str, body: ResponsesRequest, chat: ChatRequest, answers: ParsedAnswers
    ) -> None:
        self._id = answer_id
        self._model = model
        self._created = int(time.time())
        self._body = body
        self._chat = chat
        self._answers = answers
        self._blocks = Blocks()
        self._numbers = itertools.count()

    def whole(self, states: list[RequestState]) -> dict[str, Any]:
        (state,) = states
        return self._response(state, blocks_of(self._answers.take(state)))

    def events(self, moved: list[RequestState]) -> Iterable[Event]:
        for state in moved:
            if not self._answers.begun(state):
                yield self._event("response.created", response=self._response(None, []))
                yield self._event("response.in_progress", response=self._response(None, []))
            for change in self._blocks.push(self._answers.take(state)):
                yield from self._block_events(change)

    def last_events(self, states: list[RequestState]) -> Iterator[Event]:
        for change in self._blocks.close():
            yield from self._block_events(change)
        response = self._response(states[0], self._blocks.blocks)
        yield self._event(f"response.{response['status']}", response=response)

    def _block_events(self, change: Change) -> Iterator[Event]:
        block = change.block
        where = {"item_id": self._item_id(block), "output_index": block.index}
        names = _EVENT_NAMES[block.kind]
        part = {} if block.kind is Kind.CALL else {"content_index": 0}
        if change.step is Step.OPEN:
            item = self._item(block, "in_progress", empty=True)
            yield self._event("response.output_item.added", output_index=block.index, item=item)
            if part:
                yield self._event("response.content_part.added", **where, **part, part=_part(block.kind, ""))
        elif change.step is Step.DELTA:
            more: dict[str, Any] = {"logprobs": []} if block.kind is Kind.TEXT else {}
            yield self._event(f"{names}.delta", **where, **part, delta=change.delta, **more)
        else:
            yield from self._closing(block, names, where, part)

    def _closing(self, block: Block, names: str, where: dict[str, Any], part: dict[str, int]) -> Iterator[Event]:
        if block.call is not None:
            yield self._event(f"{names}.done", **where, name=block.call.name, arguments=block.text)
        else:
            more: dict[str, Any] = {"logprobs": []} if block.kind is Kind.TEXT else {}
            yield self._event(f"{names}.done", **where, **part, text=block.text, **more)
            yield self._event("response.content_part.done", **where, **part, part=_part(block.kind, block.text))
        item = self._item(block, "completed")
        yield self._event("response.output_item.done", output_index=block.index, item=item)

    def _item(self, block: Block, status: str, empty: bool = False) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._item_id(block), "status": status}
        text = "" if empty else block.text
        content = [] if empty else [_part(block.kind, text)]
        if block.call is not None:
            return {
                **item,
                "type": "function_call",
                "call_id": block.call.id,
                "name": block.call.name,
                "arguments": text,
            }
        if block.kind is Kind.REASONING:
            return {**item, "type": "reasoning", "summary": [], "content": content}
        return {**item, "type": "message", "role": "assistant", "content": content}

    def _item_id(self, block: Block) -> str:
        return f"{_PREFIX[block.kind]}_{self._id.removeprefix('resp_')}_{block.index}"

    def _event(self, kind: str, /, **fields: Any) -> Event:
        return {"type": kind, "sequence_number": next(self._numbers), **fields}

    def _response(self, state: RequestState | None, blocks: list[Block]) -> dict[str, Any]:
        """The response object; without a state it has only begun."""
        body = self._body
        finish = None if state is None else state.finish
        aborted = finish is not None and finish.kind == "abort"
        cut = finish is not None and finish.kind == "length"
        status = "in_progress" if state is None else "failed" if aborted else "incomplete" if cut else "completed"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": {"code": "server_error", "message": finish.message} if aborted and finish else None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._model,
            "output": [self._item(block, "completed") for block in blocks],
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning.get("effort"), "summary": None},
            "store": False,
            "temperature": self._chat.temperature,
            "text": {"format": self._body.text.get("format") or {"type": "text"}},
            "tool_choice": body.tool_choice,
            "tools": body.tools,
            "top_p": self._chat.top_p,
            "truncation": body.truncation,
            "usage": None if state is None else _usage(state, self._answers.reasoning_tokens(state)),
            "user": body.user,
            "metadata": body.metadata,
        }


_EVENT_NAMES = {
    Kind.REASONING: "response.reasoning_text",
    Kind.TEXT: "response.output_text",
    Kind.CALL: "response.function_call_arguments",
}


def _part(kind: Kind, text: str) -> dict[str, Any]:
    if kind is Kind.REASONING:
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(state: RequestState, reasoning: int) -> dict[str, Any]:
    return {
        "input_tokens": state.prompt_tokens,
        "input_tokens_details": {"cached_tokens": state.cached_tokens},
        "output_tokens": state.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": state.prompt_tokens + state.completion_tokens,
    }
