"""One step's work, as the scheduler decided it and the runner reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
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
    num_tokens: int
    fresh: NDArray[np.int64]  # slots occupied since the last batch: the device has not seen their tokens
