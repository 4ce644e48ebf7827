"""Where one answer stands in its grammar."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from llguidance import LLExecutor, LLMatcher
from numpy.typing import NDArray

from backend.grammar.errors import GrammarError
from backend.grammar.translate import one_line


def bitmask_words(vocab_size: int) -> int:
    """Words of 32 bits in one row of a bitmask."""
    return (vocab_size + 31) // 32


class GrammarState:
    """Follows one answer token by token. To be used by one thread at a time; every call may raise GrammarError."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._words = bitmask_words(vocab_size)

    @property
    def is_done(self) -> bool:
        """Whether nothing more can be said (an end token may be the only one allowed)."""
        return self._matcher.is_stopped()

    @property
    def may_end(self) -> bool:
        """Whether the answer so far is complete."""
        return self._matcher.is_accepting()

    def fill_mask(self, row: NDArray[np.int32]) -> None:
        """Write the allowed tokens into ``row``, int32 ``[bitmask_words(vocab)]``, contiguous; a set bit allows."""
        if row.dtype != np.int32 or row.shape != (self._words,) or not row.flags.c_contiguous:
            raise TypeError(f"a mask row must be contiguous int32[{self._words}], got {row.dtype}{list(row.shape)}")
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        self._check()

    def advance(self, token: int) -> None:
        """Take a token into the answer; it must be one that the mask allows."""
        if not self._matcher.consume_token(token):
            self._check()

    def forced(self) -> list[int]:
        """The tokens that must come next, as the tokenizer itself would write them; none where there is a choice."""
        if not self._matcher.compute_ff_bytes():  # asks for no tokenisation: nearly always the answer
            return []
        tokens = list(self._matcher.compute_ff_tokens())
        # Text that spells a control token is tokenised as that token, which the grammar does not mean.
        fitting = self._matcher.validate_tokens(tokens) if tokens else 0
        self._check()
        return tokens[:fitting]

    def jump(self, room: int, stops: frozenset[int] = frozenset()) -> list[int]:
        """Take the forced tokens into the answer, ``room`` of them at most, and none from a token in ``stops`` on."""
        matcher = self._matcher
        if room <= 0 or not matcher.compute_ff_bytes():
            return []
        tokens = matcher.compute_ff_tokens()[:room]
        if not stops.isdisjoint(tokens):
            tokens = list(takewhile(lambda token: token not in stops, tokens))
        # Fewer where text spells a control token: it is tokenised as that token, which the grammar does not mean.
        taken = matcher.try_consume_tokens(tokens) if tokens else 0
        if taken < len(tokens):
            self._check()
        return tokens[:taken]

    def rollback(self, count: int) -> None:
        """Take back the last ``count`` tokens."""
        self._matcher.rollback(count)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the output left its grammar: {one_line(self._matcher.get_error())}")


class MaskFiller:
    """Fills the masks of many answers at once, on several threads and without the interpreter's lock."""

    def __init__(self) -> None:
        self._executor = LLExecutor()

    def fill(self, states: Sequence[GrammarState], rows: Sequence[int], bits: NDArray[np.int32]) -> dict[int, str]:
        """Write what each state allows into its row of ``bits``, int32 ``[any, bitmask_words(vocab)]``, contiguous.

        Returns why, by row, where a mask could not be computed; the row's bits mean nothing then.
        """
        matchers = [(state._matcher, row) for state, row in zip(states, rows, strict=True)]
        if len(matchers) == 1:  # not worth waking another thread
            matchers[0][0].unsafe_compute_mask_ptr(bits[rows[0]].ctypes.data, bits.strides[0])
        elif matchers:
            self._executor.unsafe_compute_mask_ptr(matchers, bits.ctypes.data, bits.strides[0], len(bits))
        failed = [(row, matcher) for matcher, row in matchers if matcher.is_error()]
        return {row: f"the output left its grammar: {one_line(matcher.get_error())}" for row, matcher in failed}
