"""``/v1/chat/completions``: a conversation in, the assistant's next message out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web

from backend.api.answers import answer_stream, answer_whole
from backend.api.chat_request import CHAT_NOT_YET, ChatRequest, start_chat
from backend.api.constraints import openai_constraint
from backend.api.context import CONTEXT
from backend.api.logprobs import LogprobBodies
from backend.api.openai import check_model, finish_fields, usage
from backend.api.parsed_answers import ParsedAnswers
from backend.api.parsers import ToolCall
from backend.api.ready_made import Around, ReadyMade
from backend.api.sampling_defaults import with_defaults
from backend.api.schema import parse_json, refuse_not_yet
from backend.frontend.request import RequestState


async def chat_completions(request: web.Request) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, CHAT_NOT_YET)
    body = ChatRequest.read(with_defaults(data, serving.sampling_defaults))
    check_model(body.model, serving.model)
    answer_id = body.answer_id("chatcmpl")
    generation, answers = await start_chat(serving, body, answer_id, openai_constraint(data))
    logprobs = LogprobBodies(serving.frontend.intake.tokenizer)
    chat = _Chat(body, answer_id, serving.model.name, answers, logprobs)
    if body.stream:
        chat.states = generation.states
        return await answer_stream(request, generation, chat.chunks, chat.last_chunks, around=chat.around)
    return await answer_whole(request, generation, chat.whole)


NOT_ENDED: dict[str, Any] = {"finish_reason": None, "matched_stop": None}


class _Chat:
    """Builds the bodies of one call."""

    def __init__(
        self, body: ChatRequest, answer_id: str, model: str, answers: ParsedAnswers, logprobs: LogprobBodies
    ) -> None:
        self.states: list[RequestState] = []
        self._body = body
        self._bare = not (body.logprobs or body.stream_options.continuous_usage_stats)  # chunks of nothing but text
        self._ids = {"id": answer_id, "created": int(time.time()), "model": model}
        self._answers = answers
        self._logprobs = logprobs
        self._texts = ReadyMade(lambda index, text: self._event(index, {"content": text}, None, NOT_ENDED))

    def whole(self, states: list[RequestState]) -> dict[str, Any]:
        choices = [self._choice(state) for state in states]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage(states)}

    def _choice(self, state: RequestState) -> dict[str, Any]:
        parsed = self._answers.take(state)
        message = {
            "role": "assistant",
            "content": None if parsed.calls and not parsed.content else parsed.content,
            "reasoning_content": parsed.reasoning or None,
            "tool_calls": [_tool_call(call) for call in parsed.calls] or None,
        }
        return {"index": state.index, "message": message, "logprobs": self._logprobs.chat(state), **self._ending(state)}

    def chunks(self, moved: list[RequestState]) -> Iterable[dict[str, Any] | bytes]:
        events: list[dict[str, Any] | bytes] = []
        for state in moved:
            if not self._bare or state.finish is not None or not self._answers.unparsed(state):
                events += self._any_chunks(state)
            elif text := state.take():
                events.append(self._texts.frame(state.index, text))
        return events

    def around(self, state: RequestState) -> Around | None:
        """Where only text follows until the end: what stands before and behind it."""
        return self._texts.around(state.index) if self._bare and self._answers.unparsed(state) else None

    def _any_chunks(self, state: RequestState) -> Iterator[dict[str, Any] | bytes]:
        """A request's first chunk names the role, its last one the reason why it ended."""
        if not self._answers.begun(state):
            yield self._chunk(state, {"role": "assistant", "content": ""}, last=False)
        for delta in self._deltas(state):
            if self._bare and "content" in delta:
                yield self._texts.frame(state.index, delta["content"])
            else:
                yield self._chunk(state, delta, last=False)
        if state.finish:
            yield self._chunk(state, {}, last=True)

    def _deltas(self, state: RequestState) -> Iterator[dict[str, Any]]:
        number = self._answers.calls(state)
        parsed = self._answers.take(state)
        if parsed.reasoning:
            yield {"reasoning_content": parsed.reasoning}
        if parsed.content:
            yield {"content": parsed.content}
        for index, call in enumerate(parsed.calls, number):
            yield {"tool_calls": [{"index": index, **_tool_call(call)}]}

    def last_chunks(self, states: list[RequestState]) -> Iterable[dict[str, Any]]:
        if self._body.stream_options.include_usage:
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage(states)}

    def _usage(self, states: list[RequestState]) -> dict[str, Any]:
        return usage(states, self._body.n, sum(map(self._answers.reasoning_tokens, states)))

    def _chunk(self, state: RequestState, delta: dict[str, Any], last: bool) -> dict[str, Any]:
        logprobs = self._logprobs.chat(state) if delta.get("role") is None else None
        chunk = self._event(state.index, delta, logprobs, self._ending(state) if last else NOT_ENDED)
        if self._body.stream_options.continuous_usage_stats:
            chunk["usage"] = self._usage(self.states)
        return chunk

    def _event(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, ending: dict[str, Any]
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, **ending}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _ending(self, state: RequestState) -> dict[str, Any]:
        ending = finish_fields(state)
        if ending["finish_reason"] == "stop" and self._answers.calls(state):
            return {**ending, "finish_reason": "tool_calls"}
        return ending

    def _head(self, kind: str) -> dict[str, Any]:
        return {**self._ids, "object": kind}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
