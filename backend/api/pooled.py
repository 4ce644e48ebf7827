"""What the routes share that ask for a vector of a prompt instead of an answer to it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.api.errors import CLIENT_CLOSED_REQUEST, SchemaError
from backend.api.schema import RequestFields
from backend.frontend.errors import RequestError
from backend.frontend.intake import Prompt, RequestOptions
from backend.frontend.request import RequestState
from backend.sampling_params import SamplingParams

NO_TOKENS = SamplingParams(max_new_tokens=0, temperature=0.0)


def prompts_of(given: Any, field: str) -> tuple[list[Prompt], bool]:
    """The prompts in a text, a list of texts, token ids or lists of them, and whether they came as a list."""
    if isinstance(given, str):
        return [given], False
    if not given:
        raise SchemaError(f"{field}: it is empty, got []", param=field)
    return ([given], False) if isinstance(given[0], int) else (list(given), True)


def pooled_option(pooling: str, body: RequestFields, names: dict[str, str]) -> RequestOptions:
    """A request for a vector: of the kind ``pooling`` (see :class:`RequestOptions`)."""
    return RequestOptions(
        sampling=NO_TOKENS,
        fit_output=True,
        namespace=body.namespace,
        priority=body.priority,
        pooling=pooling,
        names=names,
    )


def vector_of(state: RequestState) -> NDArray[np.float32]:
    """What came of a finished request."""
    if state.embedding is None:
        raise unanswered(state)
    return state.embedding


def unanswered(state: RequestState) -> RequestError:
    """The error for a request that ended before there was anything to tell: somebody aborted it."""
    if state.finish is not None and state.finish.kind == "abort":
        return RequestError(
            f"The request was ended before its result was there: {state.finish.message}", CLIENT_CLOSED_REQUEST
        )
    return RequestError("The request ended without a result.", HTTPStatus.INTERNAL_SERVER_ERROR)


def native_item(state: RequestState, vector: NDArray[np.float32]) -> dict[str, Any]:
    """A vector in the form of SGLang's own routes."""
    return {
        "embedding": vector.tolist(),
        "meta_info": {
            "id": state.rid,
            "finish_reason": state.finish.as_dict() if state.finish else None,
            "prompt_tokens": state.prompt_tokens,
            "cached_tokens": state.cached_tokens,
        },
    }
