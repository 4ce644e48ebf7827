"""``/v1/completions``: text or token ids in, text out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from aiohttp import web
from pydantic import Field, StrictInt

from backend.api.answers import answer_stream, answer_whole
from backend.api.best_of import best, check_best_of
from backend.api.constraints import openai_constraint
from backend.api.context import CONTEXT
from backend.api.errors import SchemaError
from backend.api.logprobs import MOST_LIKELY, LogprobBodies
from backend.api.openai import OPENAI_NOT_YET, OpenAIRequest, check_model, finish_fields, usage
from backend.api.ready_made import Around, ReadyMade
from backend.api.sampling_defaults import with_defaults
from backend.api.sampling_fields import OPENAI_NAMES, Count
from backend.api.schema import IDS_AT_ONCE, Harmless, parse_json, refuse_not_yet
from backend.frontend.errors import RequestError
from backend.frontend.intake import Intake, Prompt, RequestOptions
from backend.frontend.request import RequestState
from backend.grammar import GrammarSpec
from backend.messages import LogprobSpec

COMPLETION_NOT_YET: Harmless = {
    **OPENAI_NOT_YET,
    "suffix": (),
}
COMPLETION_NAMES = {**OPENAI_NAMES, "input_ids": "prompt"}
OBJECT = "text_completion"


class CompletionRequest(OpenAIRequest):
    prompt: Annotated[str | list[str] | list[StrictInt] | list[list[StrictInt]], IDS_AT_ONCE]
    max_tokens: Annotated[int, Field(ge=0)] = 16
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MOST_LIKELY)] | None = None
    best_of: Count | None = None


async def completions(request: web.Request) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, COMPLETION_NOT_YET)
    body = CompletionRequest.read(with_defaults(data, serving.sampling_defaults))
    check_model(body.model, serving.model)
    prompts = _prompts(body.prompt)
    logprobs = LogprobBodies(serving.frontend.intake.tokenizer)
    answer = _Completion(body, serving.model.name, _echoes(body, prompts, serving.frontend.intake), logprobs)
    options = answer.options(len(prompts), openai_constraint(data))
    generation = await serving.frontend.submit(prompts, options)
    if body.stream:
        answer.states = generation.states
        return await answer_stream(request, generation, answer.chunks, answer.last_chunks, around=answer.around)
    return await answer_whole(request, generation, answer.whole)


def _prompts(prompt: Any) -> list[Prompt]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise SchemaError("prompt: it is empty, got []", param="prompt")
    return [prompt] if isinstance(prompt[0], int) else list(prompt)


def _echoes(body: CompletionRequest, prompts: list[Prompt], intake: Intake) -> list[str]:
    """What each answer begins with: the prompt's text, when the client wants to read it again."""
    if not body.echo:
        return []
    tokenizer = intake.tokenizer
    if tokenizer is None:
        raise RequestError("This server runs with --skip-tokenizer-init: echo needs a tokenizer.", param="echo")
    for prompt in prompts:
        if isinstance(prompt, list):
            intake.check_ids(prompt, "prompt")
    return [tokenizer.decode(prompt) if isinstance(prompt, list) else str(prompt) for prompt in prompts]


class _Completion:
    """Builds the bodies of one call."""

    def __init__(self, body: CompletionRequest, model: str, echoes: list[str], logprobs: LogprobBodies) -> None:
        self.states: list[RequestState] = []
        self._body = body
        self._made = check_best_of(body.best_of, body.n, body.stream)  # answers to each prompt, told or not
        self._echoes = echoes  # one for each prompt, or none
        self._id = body.answer_id("cmpl")
        self._head = {"id": self._id, "object": OBJECT, "created": int(time.time()), "model": model}
        self._bare = body.logprobs is None and not body.stream_options.continuous_usage_stats  # chunks of text alone
        self._echoed: set[int] = set()
        self._logprobs = logprobs
        self._texts = ReadyMade(self._text_event)

    def options(self, count: int, grammar: GrammarSpec | None) -> list[RequestOptions]:
        body = self._body
        asked = body.logprobs is not None
        sampling = msgspec.structs.replace(body.to_sampling(body.max_tokens), n=self._made)
        ranked = self._made > body.n
        option = RequestOptions(
            sampling=sampling,
            rid=self._id,
            streaming=body.stream,
            fit_output="max_tokens" not in body.model_fields_set,
            namespace=body.namespace,
            logprobs=LogprobSpec(0 if body.echo and asked else -1, body.logprobs or 0) if asked or ranked else None,
            priority=body.priority,
            names=COMPLETION_NAMES,
            grammar=grammar,
        )
        return [option] * count

    def whole(self, states: list[RequestState]) -> dict[str, Any]:
        told = best(states, self._made, self._body.n) if self._made > self._body.n else states
        choices = [self._choice(state, self._echo(state) + state.text, index) for index, state in enumerate(told)]
        return {**self._head, "choices": choices, "usage": usage(states, self._made)}

    def chunks(self, moved: list[RequestState]) -> Iterable[dict[str, Any] | bytes]:
        for state in moved:
            text = self._echo_once(state) + state.take()
            if text and self._bare and state.finish is None:
                yield self._texts.frame(state.index, text)
            elif text or state.finish:
                chunk = {**self._head, "choices": [self._choice(state, text, state.index)]}
                if self._body.stream_options.continuous_usage_stats:
                    chunk["usage"] = usage(self.states, self._body.n)
                yield chunk

    def around(self, state: RequestState) -> Around | None:
        """Where only text follows until the end: what stands before and behind it."""
        return self._texts.around(state.index) if self._bare else None

    def _text_event(self, index: int, text: str) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None, "matched_stop": None}
        return {**self._head, "choices": [choice]}

    def last_chunks(self, states: list[RequestState]) -> Iterable[dict[str, Any]]:
        if self._body.stream_options.include_usage:
            yield {**self._head, "choices": [], "usage": usage(states, self._body.n)}

    def _echo(self, state: RequestState) -> str:
        return self._echoes[state.index // self._made] if self._echoes else ""

    def _echo_once(self, state: RequestState) -> str:
        """The same before the first piece of a text, and nothing before the others."""
        if not self._echoes or state.uid in self._echoed:
            return ""
        self._echoed.add(state.uid)
        return self._echo(state)

    def _choice(self, state: RequestState, text: str, index: int) -> dict[str, Any]:
        asked = self._body.logprobs is not None
        logprobs = self._logprobs.completion(state, self._body.echo) if asked else None
        return {"index": index, "text": text, "logprobs": logprobs, **finish_fields(state)}
