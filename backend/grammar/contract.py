"""What the scheduler asks of a grammar, whichever library follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class AnswerState(Protocol):
    """Follows one answer token by token. To be used by one thread at a time; every call may raise GrammarError."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more can be said (an end token may be the only one allowed)."""

    @property
    def may_end(self) -> bool:
        """Whether the answer so far is complete."""

    def fill_mask(self, row: NDArray[np.int32]) -> None:
        """Write the allowed tokens into ``row``, int32 ``[bitmask_words(vocab)]``, contiguous; a set bit allows."""

    def advance(self, token: int) -> None:
        """Take a token into the answer; it must be one that the mask allows."""

    def forced(self) -> list[int]:
        """The tokens that must come next, as the tokenizer itself would write them; none where there is a choice."""

    def jump(self, room: int, stops: frozenset[int] = frozenset()) -> list[int]:
        """Take the forced tokens into the answer, ``room`` of them at most, and none from a token in ``stops`` on."""

    def rollback(self, count: int) -> None:
        """Take back the last ``count`` tokens."""


class Startable(Protocol):
    """A compiled grammar: any number of answers begin with it."""

    def start(self) -> AnswerState:
        """The state of an answer that begins. May raise GrammarError."""


class Filler(Protocol):
    """Fills the masks of a step's rows, whose states began with grammars of the same library."""

    def fill(self, states: Sequence[Any], rows: Sequence[int], bits: NDArray[np.int32]) -> dict[int, str]:
        """Write what each state allows into its row of ``bits``, int32 ``[any, bitmask_words(vocab)]``, contiguous.

        Returns why, by row, where a mask could not be computed; the row's bits mean nothing then.
        """
