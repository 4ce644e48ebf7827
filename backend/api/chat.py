"""``/v1/chat/completions``: a conversation in, the assistant's next message out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, StrictInt

from backend.api.answers import answer_stream, answer_whole
from backend.api.context import CONTEXT
from backend.api.deltas import Deltas
from backend.api.errors import SchemaError, unsupported
from backend.api.openai import OPENAI_NOT_YET, OpenAIRequest, check_model, finish_fields, usage
from backend.api.sampling_defaults import with_defaults
from backend.api.sampling_fields import UNBOUNDED
from backend.api.schema import Body, Harmless, parse_json, refuse_not_yet
from backend.frontend.intake import ChatPrompt, Prompt, RequestOptions
from backend.frontend.request import RequestState

CHAT_NOT_YET: Harmless = {
    **OPENAI_NOT_YET,
    "logprobs": (False,),
    "top_logprobs": (0,),
    "functions": (),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
}
TokenCount = Annotated[int, Field(ge=1)]


class Message(Body):
    """One message; fields beyond these are the template's business."""

    role: str
    content: str | list[dict[str, Any]] = ""


class ChatRequest(OpenAIRequest):
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    input_ids: list[StrictInt] | None = None  # the rendered conversation; the messages are then not read
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = {}

    @property
    def output_limit(self) -> int | None:
        """The newer name wins; None is as much as fits."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


async def chat_completions(request: web.Request) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, CHAT_NOT_YET)
    body = ChatRequest.read(with_defaults(data, serving.sampling_defaults))
    check_model(body.model, serving.model)
    answer = _Chat(body, serving.model.name)
    generation = await serving.frontend.submit([_prompt(body)], [answer.options()])
    if body.stream:
        answer.states = generation.states
        return await answer_stream(request, generation, answer.chunks, answer.last_chunks)
    return await answer_whole(request, generation, answer.whole)


def _prompt(body: ChatRequest) -> Prompt:
    if body.input_ids is not None:
        return body.input_ids
    if body.tools and body.tool_choice != "none":
        raise unsupported("tools", body.tools)
    for position, message in enumerate(body.messages):
        _check_message(message, f"messages.{position}")
    if body.continue_final_message and body.messages[-1]["role"] != "assistant":
        raise SchemaError(
            f"continue_final_message needs an assistant message at the end, got role {body.messages[-1]['role']!r}",
            param="continue_final_message",
        )
    options = {
        **body.chat_template_kwargs,
        "add_generation_prompt": body.add_generation_prompt,
        "continue_final_message": body.continue_final_message,
    }
    return ChatPrompt(body.messages, options)


def _check_message(message: Mapping[str, Any], where: str) -> None:
    content = Message.read(message, where).content
    for position, part in enumerate(content if isinstance(content, list) else ()):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise unsupported(f"{where}.content.{position}.type", part.get("type"))


class _Chat:
    """Builds the bodies of one call."""

    def __init__(self, body: ChatRequest, model: str) -> None:
        self.states: list[RequestState] = []
        self._body = body
        self._id = body.answer_id("chatcmpl")
        self._created = int(time.time())
        self._model = model
        self._deltas = Deltas()

    def options(self) -> RequestOptions:
        body, limit = self._body, self._body.output_limit
        return RequestOptions(
            sampling=body.to_sampling(UNBOUNDED if limit is None else limit),
            rid=self._id,
            streaming=body.stream,
            fit_output=limit is None,
            namespace=body.namespace,
            priority=body.priority,
        )

    def whole(self, states: list[RequestState]) -> dict[str, Any]:
        choices = [
            {
                "index": state.index,
                "message": {"role": "assistant", "content": state.text, "reasoning_content": None, "tool_calls": None},
                "logprobs": None,
                **finish_fields(state),
            }
            for state in states
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(states, self._body.n)}

    def chunks(self, moved: list[RequestState]) -> Iterable[dict[str, Any]]:
        """A request's first chunk names the role, its last one the reason why it ended."""
        for state in moved:
            if not self._deltas.begun(state):
                yield self._chunk(state, {"role": "assistant", "content": ""}, last=False)
            if text := self._deltas.take(state):
                yield self._chunk(state, {"content": text}, last=False)
            if state.finish:
                yield self._chunk(state, {}, last=True)

    def last_chunks(self, states: list[RequestState]) -> Iterable[dict[str, Any]]:
        if self._body.stream_options.include_usage:
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(states, self._body.n)}

    def _chunk(self, state: RequestState, delta: dict[str, Any], last: bool) -> dict[str, Any]:
        ending = finish_fields(state) if last else {"finish_reason": None, "matched_stop": None}
        choice = {"index": state.index, "delta": delta, "logprobs": None, **ending}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self._body.stream_options.continuous_usage_stats:
            chunk["usage"] = usage(self.states, self._body.n)
        return chunk

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}
