"""``best_of``: more answers are made than told, and those that the model finds likeliest are told."""

from __future__ import annotations

from collections.abc import Sequence

from backend.api.errors import SchemaError
from backend.frontend.request import RequestState


def check_best_of(best_of: int | None, n: int, stream: bool) -> int:
    """How many answers to make for each prompt. Raises :class:`SchemaError`."""
    if best_of is None or best_of == n:
        return n
    if best_of < n:
        raise SchemaError(f"best_of must be at least n ({n}), got {best_of}", param="best_of")
    if stream:
        message = f"best_of {best_of} with n {n} cannot be streamed: the best are known at the end only"
        raise SchemaError(message, param="best_of")
    return best_of


def best(states: Sequence[RequestState], made: int, n: int) -> list[RequestState]:
    """Of each prompt's ``made`` answers the ``n`` best, best first; prompts in their order."""
    chosen: list[RequestState] = []
    for begin in range(0, len(states), made):
        chosen += sorted(states[begin : begin + made], key=_likelihood, reverse=True)[:n]
    return chosen


def _likelihood(state: RequestState) -> float:
    """Log probability per token, as OpenAI ranks them; nothing was said: the least."""
    places = state.logprobs.output[: state.completion_tokens] if state.logprobs else []
    return sum(place.logprob for place in places) / len(places) if places else float("-inf")
