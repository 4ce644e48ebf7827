"""One step's work, as the scheduler decided it and the runner reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.cache.host_moves import Transfers
from backend.messages import LogprobSpec


@dataclass(frozen=True, slots=True)
class LogprobRow:
    """A row of the batch whose request wants log probabilities, and for which prompt positions in this step."""

    index: int  # in the batch
    spec: LogprobSpec
    first: int  # prompt positions first .. last - 1: their tokens' log probabilities
    last: int


@dataclass(frozen=True, slots=True)
class PooledRow:
    """A row of the batch that computes prompt tokens whose hidden states are wanted as one vector."""

    index: int  # in the batch
    mean: bool  # the sum over this step's tokens; else the last one's own
    last: bool  # the prompt ends here
    classify: bool = False  # the last one's own goes through the classifier's head


Places = list[tuple[float, list[tuple[float, int]], list[float]]]  # per token: its own, the likeliest, the asked-for


@dataclass(frozen=True, slots=True)
class RowLogprobs:
    """What a step found for a :class:`LogprobRow`: ``output`` has one place, or none when the row did not sample."""

    prompt: Places
    output: Places


class AllowedTokens:
    """What the sampling rows of a batch that follow a grammar may sample.

    ``rows`` are indices in the batch. ``fill`` is called when the bits are first asked for: best when the device is
    computing the logits.
    """

    def __init__(self, rows: NDArray[np.int64], fill: Callable[[], NDArray[np.int32]]) -> None:
        self.rows = rows
        self._fill = fill

    @cached_property
    def bits(self) -> NDArray[np.int32]:
        """``[len(rows), words]``: bit i % 32 of word i // 32 allows token i."""
        return self._fill()


@dataclass(slots=True)  # made at every step, where to be frozen would cost: nobody changes it
class StepBatch:
    """Which tokens of which slots one step computes. Arrays are parallel, one entry per row.

    Rows that compute one token come first, then the longer ones; each part in slot order, so that the same state gives
    the same batch everywhere.
    """

    rows: NDArray[np.int64]  # slots
    starts: NDArray[np.int32]  # tokens computed before this step
    lens: NDArray[np.int32]  # tokens computed by it, at least 1
    samples: NDArray[np.bool_]  # rows that reach their known length here and sample the next token
    generations: NDArray[np.int64]  # of the slots at launch
    version: int  # of the slots at launch: while it stands, every row still runs
    in_prompt: NDArray[np.bool_] | None  # rows that compute prompt tokens; None when no row does
    num_tokens: int
    logprobs: tuple[LogprobRow, ...]
    fresh: NDArray[np.int64]  # slots with tokens that the device has not seen: occupied since the last batch, or jumped
    pooled: tuple[PooledRow, ...] = ()
    allowed: AllowedTokens | None = None  # None when no sampling row follows a grammar
    transfers: Transfers | None = None  # copies between device and host that start before the step; None: none due


class DeviceLost(Exception):
    """The device computes nothing any more in this process: only another one helps."""


class LaunchedStep(Protocol):
    def tokens(self) -> NDArray[np.int32]:
        """Wait for the step; one token per row of its batch (meaningless where the row did not sample).

        Raises what the step raised: :class:`DeviceLost` ends the scheduler, anything else costs the step's requests.
        """

    def logprobs(self) -> list[RowLogprobs]:
        """One entry for each row in the batch's ``logprobs``."""

    def pooled(self) -> list[NDArray[np.float32]]:
        """A vector for each row in the batch's ``pooled``."""
