"""Log probabilities in the forms of OpenAI's routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.frontend.intake import TokenizerLike
from backend.frontend.request import RequestState
from backend.messages import TokenLogprobs

MOST_LIKELY = 20  # alternatives that a client may ask for at each position


class LogprobBodies:
    """Tells the log probabilities of a call's tokens, those of each token once."""

    def __init__(self, tokenizer: TokenizerLike | None) -> None:
        self._tokenizer = tokenizer
        self._told: dict[int, int] = {}
        self._offsets: dict[int, int] = {}

    def chat(self, state: RequestState) -> dict[str, Any] | None:
        """``logprobs`` of a chat choice: what is new; None when nothing is or was asked for."""
        places = self._fresh(state)
        return {"content": [self._entry(place) for place in places], "refusal": None} if places else None

    def completion(self, state: RequestState, echo: bool) -> dict[str, Any] | None:
        """``logprobs`` of a text choice; with ``echo`` the first of a request begins with the prompt's."""
        if state.logprobs is None:
            return None
        begins = state.uid not in self._told
        places: list[TokenLogprobs | int] = list(self._fresh(state))
        if echo and begins:  # the first token of a prompt has no log probability
            places = [*state.prompt_ids[:1], *state.logprobs.prompt, *places]
        tokens = [self._text(place if isinstance(place, int) else place.token) for place in places]
        known = [None if isinstance(place, int) else place for place in places]
        return {
            "tokens": tokens,
            "token_logprobs": [None if place is None else place.logprob for place in known],
            "top_logprobs": [None if place is None else self._alternatives(place) for place in known],
            "text_offset": self._text_offsets(state, tokens),
        }

    def _fresh(self, state: RequestState) -> Sequence[TokenLogprobs]:
        if state.logprobs is None:
            return ()
        told = self._told.get(state.uid, 0)
        self._told[state.uid] = state.completion_tokens
        return state.logprobs.output[told : state.completion_tokens]

    def _entry(self, place: TokenLogprobs) -> dict[str, Any]:
        top = [self._one(token, logprob) for logprob, token in place.top]
        return {**self._one(place.token, place.logprob), "top_logprobs": top}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def _alternatives(self, place: TokenLogprobs) -> dict[str, float] | None:
        return {self._text(token): logprob for logprob, token in place.top} if place.top else None

    def _text_offsets(self, state: RequestState, tokens: list[str]) -> list[int]:
        offset, offsets = self._offsets.get(state.uid, 0), []
        for text in tokens:
            offsets.append(offset)
            offset += len(text)
        self._offsets[state.uid] = offset
        return offsets

    def _text(self, token: int) -> str:
        """A token's own text; one that is no whole character is told by its id, so that no two look the same."""
        text = "" if self._tokenizer is None else self._tokenizer.decode([token], skip_special_tokens=False)
        return text if text and "\ufffd" not in text else f"token_id:{token}"
