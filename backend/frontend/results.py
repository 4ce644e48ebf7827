"""The dictionaries of ``/generate``, which the offline Engine returns too."""

from __future__ import annotations

from typing import Any

from backend.frontend.request import RequestState

WEIGHT_VERSION = "default"


def generate_result(state: RequestState) -> dict[str, Any]:
    """``{"text", "output_ids", "meta_info"}`` of a request as it stands; without a tokenizer there is no text."""
    result: dict[str, Any] = {} if state.text_stream is None else {"text": state.text}
    result["output_ids"] = list(state.output_ids)
    meta: dict[str, Any] = {
        "id": state.rid,
        "finish_reason": state.finish.as_dict() if state.finish else None,
        "prompt_tokens": state.prompt_tokens,
        "completion_tokens": state.completion_tokens,
        "cached_tokens": state.cached_tokens,
        "weight_version": WEIGHT_VERSION,
    }
    if state.finished_at is not None:
        meta["e2e_latency"] = state.finished_at - state.created
    result["meta_info"] = meta
    return result
