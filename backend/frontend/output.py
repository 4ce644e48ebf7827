"""What one scheduler message means for the requests it names. Pure: the server and the offline Engine both drive it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from backend.frontend.request import FinishReason, RequestState
from backend.frontend.stop_regex import StopRegexError
from backend.messages import Finish, FromScheduler


class Update(msgspec.Struct, frozen=True, gc=False):  # made for each token: quicker to make than a tuple with names
    """One request that a message moved on."""

    state: RequestState
    tokens: int  # new ones
    first: bool  # whether they are its first
    gap: float  # seconds since its previous tokens, or since it arrived


class StepResult(NamedTuple):
    """``abort``: uids that ended here by a stop string while the scheduler goes on with them; tell it."""

    updates: list[Update]
    abort: list[int]


class OutputProcessor:
    """Owns the table of running requests. Tokens for requests that are not in it are late ones and are dropped."""

    def __init__(self) -> None:
        self._states: dict[int, RequestState] = {}

    def __len__(self) -> int:
        return len(self._states)

    def add(self, state: RequestState) -> None:
        self._states[state.uid] = state

    def remove(self, uid: int) -> RequestState | None:
        """Forget a request; what still comes for it is dropped."""
        return self._states.pop(uid, None)

    def running(self) -> list[RequestState]:
        return list(self._states.values())

    def abort(self, uid: int, message: str, now: float, status_code: int | None = None) -> RequestState | None:
        """End a request before its time: what it has so far is its answer, or with a status it ends in error."""
        state = self._states.pop(uid, None)
        if state is None:
            return None
        if state.decodes_eagerly and state.text_stream is not None:
            state.fresh += state.text_stream.finish()
        else:
            _decode_all(state)
        _finish(state, FinishReason("abort", message=message, status_code=status_code), now)
        return state

    def process(self, message: FromScheduler, now: float) -> StepResult:
        """Apply one message at time ``now`` (monotonic seconds)."""
        for uid, cached in message.started:
            if state := self._states.get(uid):
                state.cached_tokens, state.started_at = cached, now
        for uid, fetched in message.fetched:
            if state := self._states.get(uid):
                state.fetched_tokens = fetched
        self._add_logprobs(message)
        for uid, vector in message.embeddings:
            if state := self._states.get(uid):
                state.embedding = np.frombuffer(vector, np.float32)
        finishes = {finish.uid: finish for finish in message.finished}
        updates: list[Update] = []
        abort: list[int] = []
        for uid, ids in _tokens(message).items():
            state = self._states.get(uid)
            if state is None:
                continue
            updates.append(_advance(state, ids, finishes.get(uid), now))
            if state.finish is not None:
                del self._states[uid]
                if uid not in finishes:
                    abort.append(uid)
        return StepResult(updates, abort)

    def _add_logprobs(self, message: FromScheduler) -> None:
        for place in message.prompt_logprobs:
            state = self._states.get(place.uid)
            if state is not None and state.logprobs is not None:
                state.logprobs.prompt.append(place)
        for place in message.logprobs:
            state = self._states.get(place.uid)
            if state is not None and state.logprobs is not None:
                state.logprobs.output.append(place)


def _tokens(message: FromScheduler) -> dict[int, list[int]]:
    """The new tokens of each request that has some, or that ended."""
    tokens: dict[int, list[int]] = {finish.uid: [] for finish in message.finished}
    if not tokens and len(set(message.uids)) == len(message.uids):
        return {uid: [token] for uid, token in zip(message.uids, message.tokens, strict=True)}
    for uid, token in zip(message.uids, message.tokens, strict=True):
        tokens.setdefault(uid, []).append(token)
    return tokens


def _advance(state: RequestState, ids: list[int], finish: Finish | None, now: float) -> Update:
    last, stream = state.last_token_at, state.text_stream
    if finish is None and last is not None and state.streaming and stream is not None and stream.stops is None:
        state.last_token_at = now  # nearly every token comes this way
        state.output_ids += ids
        state.fresh += stream.detokenizer.push(ids)
        return Update(state, len(ids), False, now - last)
    before = len(state.output_ids)
    first = state.last_token_at is None and bool(ids)
    gap = now - (state.created if state.last_token_at is None else state.last_token_at)
    if ids:
        state.last_token_at = now
        if first:
            state.first_token_at = now
    try:
        matched = _append(state, ids, finish)
    except StopRegexError as error:
        _finish(state, FinishReason("abort", message=f"stop_regex {error}", status_code=400), now)
        return Update(state, 0, first, gap)
    if matched is not None:
        _finish(state, FinishReason("stop", matched=matched), now)
    elif finish is not None:
        _finish(state, _reason(finish, state), now)
    return Update(state, len(state.output_ids) - before, first, gap)


def _append(state: RequestState, ids: list[int], finish: Finish | None) -> str | None:
    """Take the tokens into the output and, where it is needed now, their text. The stop string that ended it."""
    stream = state.text_stream
    if stream is None:
        state.output_ids += ids
        return None
    shown = ids[:-1] if finish is not None and _ends_in_hidden_stop(state, ids, finish) else ids
    if not state.decodes_eagerly:
        state.output_ids += ids
        if finish is not None:
            _decode_all(state, hidden=len(ids) - len(shown))
        return None
    text, used = stream.push(shown)
    matched = stream.matched
    state.fresh += text
    state.output_ids += ids if matched is None else shown[:used]
    if finish is not None and matched is None:
        state.fresh += stream.finish()
    return stream.matched


def _decode_all(state: RequestState, hidden: int = 0) -> None:
    """The whole text at once, without the last ``hidden`` tokens."""
    if state.text_stream is not None:
        text, _ = state.text_stream.push(state.output_ids[: state.completion_tokens - hidden])
        state.fresh = text + state.text_stream.finish()


def _ends_in_hidden_stop(state: RequestState, ids: list[int], finish: Finish) -> bool:
    """A stop token counts as output but is not shown, unless the client wants it."""
    if finish.kind != "stop" or state.sampling.no_stop_trim:
        return False
    return bool(ids) and ids[-1] == finish.matched


def _finish(state: RequestState, reason: FinishReason, now: float) -> None:
    state.finish = reason
    state.finished_at = now


def _reason(finish: Finish, state: RequestState) -> FinishReason:
    if finish.kind == "stop":
        ids = state.output_ids  # a grammar that is complete ends with its last token, as in SGLang
        return FinishReason("stop", matched=finish.matched if finish.matched >= 0 or not ids else ids[-1])
    if finish.kind == "length":
        return FinishReason("length", length=state.sampling.max_new_tokens)
    return FinishReason("abort", message=finish.message, status_code=finish.status_code)
