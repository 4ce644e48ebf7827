"""The one cost: milliseconds to the first token, and what that takes from those who come later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, overload

from policies.policy import Candidate, Score


class Wait(NamedTuple):
    """What a newcomer finds at a worker."""

    queue_ms: float  # prompts ahead
    decode_ms: float  # answers that share each step with it
    ms_per_token: float


def wait_of(candidate: Candidate) -> Wait:
    _, load, (ms, decode_ms), _ = candidate
    return Wait(load.waiting_tokens(ms) * ms, load.running * decode_ms, ms)


def score(
    worker: str,
    wait: Wait,
    prompt_tokens: int,
    cached_tokens: int = 0,
    delayed_per_token: float = 0.0,
    evicted_tokens: float = 0.0,
) -> Score:
    """Prompt work ahead of a newcomer, its own uncached tokens, and the decodes that share each step with it.

    ``delayed_per_token``: later requests that wait for each token of work, for each ms that the worker is busy.
    ``evicted_tokens``: what it pushes out that somebody will ask for again.
    """
    queue_ms, decode_ms, ms = wait
    own_tokens = prompt_tokens - cached_tokens
    own_ms = own_tokens * ms
    later_ms = own_tokens * delayed_per_token * (queue_ms + own_ms)
    return Score(worker, cached_tokens, queue_ms, own_ms, decode_ms, later_ms, evicted_tokens * ms)


class LazyScores(Sequence[Score]):
    """The scores behind a decision. Few are ever read, so they are worked out when the first one is."""

    __slots__ = ("_arguments", "_known", "_work_out")

    def __init__(self, work_out: Callable[..., tuple[Score, ...]], *arguments: object) -> None:
        self._work_out = work_out
        self._arguments = arguments
        self._known: tuple[Score, ...] | None = None

    @property
    def _scores(self) -> tuple[Score, ...]:
        if self._known is None:
            self._known = self._work_out(*self._arguments)
            self._arguments = ()
        return self._known

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
