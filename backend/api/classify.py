"""``/v1/classify`` and ``/classify``: which of a classifier's labels a text has.

With ``input`` the answer is OpenAI-like, as vLLM and SGLang give it; with ``text`` or ``input_ids`` it has the head's
raw numbers, as SGLang's own route gives them for reward models.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from aiohttp import web
from pydantic import StrictInt

from backend.api.answers import answer_whole
from backend.api.context import CONTEXT, Serving
from backend.api.errors import SchemaError
from backend.api.openai import DEFAULT_MODEL, check_model
from backend.api.pooled import native_item, pooled_option, prompts_of, vector_of
from backend.api.schema import NOT_YET, RequestFields, parse_json, refuse_not_yet
from backend.frontend.errors import RequestError
from backend.frontend.request import RequestState
from backend.loader.classes import Classes

Texts = str | list[str] | list[StrictInt] | list[list[StrictInt]]


class ClassifyRequest(RequestFields):
    model: str = DEFAULT_MODEL
    input: Texts | None = None
    text: Texts | None = None
    input_ids: Texts | None = None

    def given(self) -> tuple[str, Texts]:
        """The one field that holds the texts, and what it holds."""
        fields = {name: getattr(self, name) for name in ("input", "text", "input_ids")}
        found = [(name, value) for name, value in fields.items() if value is not None]
        if len(found) != 1:
            raise SchemaError("Give one of input, text and input_ids.", param="input")
        return found[0]


def classes_of(serving: Serving) -> Classes:
    """The model's labels. Raises :class:`RequestError` for a model that is no classifier."""
    if serving.model.classes is None:
        raise RequestError(
            f"The model {serving.model.name!r} is no classifier: it has no classification head "
            "(an architecture that ends in ForSequenceClassification has one)."
        )
    return serving.model.classes


async def classify(request: web.Request) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, NOT_YET)
    body = ClassifyRequest.read(data)
    check_model(body.model, serving.model)
    field, given = body.given()
    classes = classes_of(serving)
    prompts, many = prompts_of(given, field)
    option = pooled_option("classify", body, {"input_ids": field, "prompt": field})
    generation = await serving.frontend.submit(prompts, [option] * len(prompts))
    if field == "input":
        return await answer_whole(request, generation, lambda states: _body(serving.model.name, classes, states))
    return await answer_whole(request, generation, lambda states: _native(states, many))


def _body(model: str, classes: Classes, states: list[RequestState]) -> dict[str, Any]:
    tokens = sum(state.prompt_tokens for state in states)
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [_item(index, classes, state) for index, state in enumerate(states)],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }


def _item(index: int, classes: Classes, state: RequestState) -> dict[str, Any]:
    scores = classes.scores(vector_of(state))
    label = classes.labels[int(scores.argmax())]
    return {"index": index, "label": label, "probs": scores.tolist(), "num_classes": len(scores)}


def _native(states: list[RequestState], many: bool) -> Any:
    results = [native_item(state, vector_of(state)) for state in states]
    return results if many else results[0]
