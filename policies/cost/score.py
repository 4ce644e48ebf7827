"""The one cost: milliseconds to the first token, and what that takes from those who come later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import overload

from policies.policy import Candidate, Score


def score(
    candidate: Candidate,
    prompt_tokens: int,
    cached_tokens: int,
    delayed_per_token: float = 0.0,
    evicted_tokens: float = 0.0,
) -> Score:
    """Prompt work ahead of a newcomer, its own uncached tokens, and the decodes that share each step with it.

    ``delayed_per_token``: later requests that wait for each token of work, for each ms that the worker is busy.
    ``evicted_tokens``: what it pushes out that somebody will ask for again.
    """
    _, load, (ms, decode_ms), _ = candidate
    queue_ms = load.waiting_tokens(ms) * ms
    own_tokens = prompt_tokens - cached_tokens
    own_ms = own_tokens * ms
    return Score(
        candidate.worker,
        cached_tokens,
        queue_ms,
        own_ms,
        load.running * decode_ms,
        own_tokens * delayed_per_token * (queue_ms + own_ms),
        evicted_tokens * ms,
    )


class LazyScores(Sequence[Score]):
    """The scores behind a decision. Few are ever read, so they are worked out when the first one is."""

    def __init__(self, work_out: Callable[[], tuple[Score, ...]]) -> None:
        self._work_out = work_out

    @cached_property
    def _scores(self) -> tuple[Score, ...]:
        return self._work_out()

    def __len__(self) -> int:
        return len(self._scores)

    def __iter__(self) -> Iterator[Score]:
        return iter(self._scores)

    @overload
    def __getitem__(self, index: int) -> Score: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Score]: ...

    def __getitem__(self, index: int | slice) -> Score | Sequence[Score]:
        return self._scores[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._scores == tuple(other)

    def __hash__(self) -> int:
        return hash(self._scores)

    def __repr__(self) -> str:
        return repr(self._scores)
