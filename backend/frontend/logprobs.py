"""Log probabilities of a request's tokens, in the form of ``/generate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.messages import LogprobSpec, TokenLogprobs

TokenText = Callable[[int], str | None]
Entry = tuple[float | None, int, str | None]  # log probability, token id, text if wanted


@dataclass(slots=True)
class Logprobs:
    """What was wanted, and what came so far. ``prompt`` begins at the first wanted position, but not before 1."""

    spec: LogprobSpec
    prompt: list[TokenLogprobs] = field(default_factory=list)
    output: list[TokenLogprobs] = field(default_factory=list)


def native_fields(logprobs: Logprobs, prompt_ids: Sequence[int], count: int, text: TokenText) -> dict[str, Any]:
    """The fields of ``meta_info``; ``count`` output tokens are the client's, the rest came after a stop string."""
    spec, output = logprobs.spec, logprobs.output[:count]
    # The first token of all has nothing before it that could make it likely.
    unknown = list(prompt_ids[:1]) if spec.start == 0 else []
    fields: dict[str, Any] = {
        "input_token_logprobs": [(None, token, text(token)) for token in unknown] + _chosen(logprobs.prompt, text),
        "output_token_logprobs": _chosen(output, text),
        "output_token_logprobs_length": len(output),
    }
    if spec.top:
        fields["input_top_logprobs"] = [None] * len(unknown) + _top(logprobs.prompt, text)
        fields["output_top_logprobs"] = _top(output, text)
    if spec.ids:
        fields["input_token_ids_logprobs"] = [None] * len(unknown) + _wanted(logprobs.prompt, spec.ids, text)
        fields["output_token_ids_logprobs"] = _wanted(output, spec.ids, text)
    return fields


def _chosen(places: Sequence[TokenLogprobs], text: TokenText) -> list[Entry]:
    return [(place.logprob, place.token, text(place.token)) for place in places]


def _top(places: Sequence[TokenLogprobs], text: TokenText) -> list[list[Entry] | None]:
    return [[(logprob, token, text(token)) for logprob, token in place.top] for place in places]


def _wanted(places: Sequence[TokenLogprobs], ids: Sequence[int], text: TokenText) -> list[list[Entry] | None]:
    return [[(logprob, token, text(token)) for logprob, token in zip(place.ids, ids, strict=True)] for place in places]
