"""``/v1/embeddings`` and ``/encode``: the hidden states of a text in one vector."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from aiohttp import web
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from backend.api.answers import answer_whole
from backend.api.context import CONTEXT, ServedModel
from backend.api.errors import SchemaError
from backend.api.openai import DEFAULT_MODEL, check_model
from backend.api.pooled import native_item, pooled_option, prompts_of, vector_of
from backend.api.schema import NOT_YET, Harmless, RequestFields, parse_json, refuse_not_yet
from backend.frontend.errors import RequestError
from backend.frontend.intake import RequestOptions
from backend.frontend.request import RequestState
from backend.loader.sentence_model import Pooling

EMBEDDING_NAMES = {"input_ids": "input", "prompt": "input"}
ENCODE_NOT_YET: Harmless = {**NOT_YET, "image_data": (), "audio_data": (), "video_data": ()}


class EmbeddingRequest(RequestFields):
    model: str = DEFAULT_MODEL
    input: str | list[str] | list[StrictInt] | list[list[StrictInt]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None  # the first ones, as models trained for it allow


class EncodeRequest(RequestFields):
    text: str | list[str] | None = None
    input_ids: list[StrictInt] | list[list[StrictInt]] | None = None
    rid: str = ""


async def embeddings(request: web.Request) -> web.StreamResponse:
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, NOT_YET)
    body = EmbeddingRequest.read(data)
    check_model(body.model, serving.model)
    prompts, _ = prompts_of(body.input, "input")
    if body.dimensions is not None and body.dimensions > serving.model.hidden_size:
        message = f"dimensions must be at most {serving.model.hidden_size}, the model's own, got {body.dimensions}"
        raise SchemaError(message, param="dimensions")
    option = _option(serving.model.pooling.mode, body, EMBEDDING_NAMES)
    generation = await serving.frontend.submit(prompts, [option] * len(prompts))
    return await answer_whole(request, generation, lambda states: _openai_body(body, serving.model, states))


async def encode(request: web.Request) -> web.StreamResponse:
    """SGLang's own route: one object, or a list for a list."""
    serving = request.app[CONTEXT].serving()
    data = parse_json(await request.read())
    refuse_not_yet(data, ENCODE_NOT_YET)
    body = EncodeRequest.read(data)
    if (body.text is None) == (body.input_ids is None):
        raise SchemaError("Give either text or input_ids, and not both.", param="text")
    field = "text" if body.input_ids is None else "input_ids"
    prompts, many = prompts_of(body.text if body.input_ids is None else body.input_ids, field)
    generation = await serving.frontend.submit(prompts, [_option(serving.model.pooling.mode, body, {})] * len(prompts))
    return await answer_whole(request, generation, lambda states: _native_body(states, serving.model.pooling, many))


def _option(pooling: str, body: RequestFields, names: dict[str, str]) -> RequestOptions:
    if pooling not in ("last", "mean"):
        raise RequestError(f"The model pools by {pooling!r}, which is not supported; last and mean are.")
    return pooled_option(pooling, body, names)


def _vector(state: RequestState, pooling: Pooling, dimensions: int | None = None) -> NDArray[np.float32]:
    """Of length 1, unless the model's vectors are not; ``dimensions`` are cut off before."""
    vector = vector_of(state)[:dimensions]
    if not pooling.normalise:
        return vector
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else vector


def _openai_body(body: EmbeddingRequest, model: ServedModel, states: Sequence[RequestState]) -> dict[str, Any]:
    vectors = [_vector(state, model.pooling, body.dimensions) for state in states]
    tokens = sum(state.prompt_tokens for state in states)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ],
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _written(vector: NDArray[np.float32], form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


def _native_body(states: Sequence[RequestState], pooling: Pooling, many: bool) -> Any:
    results = [native_item(state, _vector(state, pooling)) for state in states]
    return results if many else results[0]
