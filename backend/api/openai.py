"""What the OpenAI routes share: the fields of every request, ids, usage, and the list of models."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import Field

from backend.api.context import CONTEXT, ServedModel, Serving
from backend.api.errors import json_response, model_not_found
from backend.api.sampling_fields import OpenAISampling
from backend.api.schema import NOT_YET, SAMPLING_NOT_YET, Body, Harmless, RequestFields
from backend.frontend.request import RequestState

DEFAULT_MODEL = "default"  # what SGLang's clients send when they do not care

OPENAI_NOT_YET: Harmless = {
    **NOT_YET,
    **SAMPLING_NOT_YET,
    "prompt_logprobs": (),
    # Of vLLM, and none that could be left out without changing the answer.
    "use_beam_search": (False,),
    "allowed_token_ids": (),
    "bad_words": (),
    "truncate_prompt_tokens": (),
    "include_stop_str_in_output": (False,),
}


class StreamOptions(Body):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class OpenAIRequest(OpenAISampling, RequestFields):
    """Fields of both generating routes."""

    model: str = DEFAULT_MODEL
    stream_options: StreamOptions = Field(default_factory=StreamOptions)  # pydantic copies a default, which is slower
    rid: str | None = None

    def answer_id(self, prefix: str) -> str:
        """The answer's id, by which it can also be aborted."""
        return self.rid or f"{prefix}-{uuid.uuid4().hex}"


def check_model(asked: str, model: ServedModel) -> None:
    """Raise the 404 when a client asks for a model that is not served here."""
    if asked not in ("", DEFAULT_MODEL, model.name, model.path):
        raise model_not_found(asked, model.name)


def finish_fields(state: RequestState) -> dict[str, Any]:
    """``finish_reason`` and ``matched_stop`` of a choice; both null while it goes on."""
    if state.finish is None:
        return {"finish_reason": None, "matched_stop": None}
    return {"finish_reason": state.finish.kind, "matched_stop": state.finish.matched}


def usage(states: Sequence[RequestState], n: int, reasoning: int | None = None) -> dict[str, Any]:
    """Tokens of a call; the ``n`` answers to one prompt share it, so it counts once.

    ``reasoning``: how many of the new ones are that, under the names of SGLang and of OpenAI; None: not told.
    """
    firsts = [state for state in states if state.index % n == 0]
    prompt = sum(state.prompt_tokens for state in firsts)
    completion = sum(state.completion_tokens for state in states)
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(state.cached_tokens for state in firsts)},
    }
    if reasoning is None:
        return counts
    return {**counts, "reasoning_tokens": reasoning, "completion_tokens_details": {"reasoning_tokens": reasoning}}


async def list_models(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    return json_response({"object": "list", "data": [_card(context.serving(), context.created)]})


async def show_model(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    serving = context.serving()
    name = request.match_info["model"]
    if name != serving.model.name:
        raise model_not_found(name, serving.model.name)
    return json_response(_card(serving, context.created))


def _card(serving: Serving, created: float) -> dict[str, Any]:
    return {
        "id": serving.model.name,
        "object": "model",
        "created": int(created),
        "owned_by": "warmlane",
        "root": serving.model.name,
        "parent": None,
        "max_model_len": serving.ready.context_length,
    }
