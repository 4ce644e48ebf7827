"""The dictionaries of ``/generate``, which the offline Engine returns too."""

from __future__ import annotations

from typing import Any

from backend.frontend.logprobs import TokenText, native_fields
from backend.frontend.request import RequestState

WEIGHT_VERSION = "default"


def _no_text(_: int) -> None:
    return None


def generate_result(state: RequestState, token_text: TokenText = _no_text) -> dict[str, Any]:
    """``{"text", "output_ids", "meta_info"}`` of a request as it stands; without a tokenizer there is no text.

    ``token_text`` fills the third place of each log probability.
    """
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
    if state.fetched_tokens:
        device = state.cached_tokens - state.fetched_tokens
        meta["cached_tokens_details"] = {"device": device, "host": state.fetched_tokens}
    if state.logprobs is not None:
        meta |= native_fields(state.logprobs, state.prompt_ids, state.completion_tokens, token_text)
    if state.finished_at is not None:
        meta["e2e_latency"] = state.finished_at - state.created
    result["meta_info"] = meta
    return result
