"""``/v1/score``: how likely each of some tokens is to follow a query and an item, as SGLang's clients ask for it."""

from __future__ import annotations

import math
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, StrictInt

from backend.api.answers import answer_whole
from backend.api.context import CONTEXT
from backend.api.errors import SchemaError
from backend.api.openai import DEFAULT_MODEL, check_model, usage
from backend.api.pooled import unanswered
from backend.api.schema import NOT_YET, RequestFields, parse_json, refuse_not_yet
from backend.frontend.intake import Prompt, RequestOptions
from backend.frontend.request import RequestState
from backend.messages import LogprobSpec
from backend.sampling_params import SamplingParams

Text = str | list[StrictInt]
SCORE_NAMES = {"prompt": "query", "token_ids_logprob": "label_token_ids", "input_ids": "query"}


class ScoreRequest(RequestFields):
    model: str = DEFAULT_MODEL
    query: Text
    items: str | list[str] | list[list[StrictInt]]
    label_token_ids: Annotated[list[StrictInt], Field(min_length=1)]
    apply_softmax: bool = False
    item_first: bool = False


async def score(request: web.Request) -> web.StreamResponse:
    """One request of one token for each item; what it samples does not matter."""
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, NOT_YET)
    body = ScoreRequest.read(data)
    check_model(body.model, serving.model)
    prompts = _prompts(body)
    option = RequestOptions(
        sampling=SamplingParams(max_new_tokens=1, temperature=0.0, ignore_eos=True),
        namespace=body.namespace,
        priority=body.priority,
        logprobs=LogprobSpec(ids=body.label_token_ids),
        names=SCORE_NAMES,
    )
    generation = await serving.frontend.submit(prompts, [option] * len(prompts))
    return await answer_whole(request, generation, lambda states: _body(body, serving.model.name, states))


def _prompts(body: ScoreRequest) -> list[Prompt]:
    items: list[Any] = [body.items] if isinstance(body.items, str) else list(body.items)
    if not items:
        raise SchemaError("items: it is empty, got []", param="items")
    if any(isinstance(item, str) != isinstance(body.query, str) for item in items):
        raise SchemaError("query and items must both be texts, or both be token ids", param="items")
    query: Any = body.query
    return [item + query if body.item_first else query + item for item in items]


def _body(body: ScoreRequest, model: str, states: list[RequestState]) -> dict[str, Any]:
    return {
        "object": "scoring",
        "model": model,
        "scores": [_scores(state, body.apply_softmax) for state in states],
        "usage": usage(states, 1),
    }


def _scores(state: RequestState, apply_softmax: bool) -> list[float]:
    """Probabilities among the whole vocabulary or, with ``apply_softmax``, among the labels alone."""
    if state.logprobs is None or not state.logprobs.output:
        raise unanswered(state)
    logprobs = state.logprobs.output[0].ids
    if not apply_softmax:
        return [math.exp(each) for each in logprobs]
    best = max(logprobs)  # subtracted, so that labels which are all unlikely do not vanish
    weights = [math.exp(each - best) for each in logprobs]
    return [each / sum(weights) for each in weights]
