"""Hidden states of a prompt in one vector: of its last token, its labels' numbers, or the sum over a step's tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from backend.models.base import CausalLM
from backend.scheduler.batch import StepBatch


class PooledSpan(NamedTuple):
    """Tokens ``begin`` to ``end - 1`` of a step belong to one row. ``mean``: they are summed, else the last counts.

    ``classify``: the last one's hidden states become one number for each label.
    """

    begin: int
    end: int
    mean: bool
    classify: bool = False

    def pool(self, hidden: torch.Tensor, model: CausalLM) -> torch.Tensor:
        """From ``[T, hidden]`` of the step, float32 ``[hidden]`` or ``[labels]`` on its way to the host."""
        rows = hidden[self.begin : self.end].float()
        vector = rows.sum(dim=0) if self.mean else rows[-1]
        return (model.classify(vector) if self.classify else vector).to("cpu", non_blocking=True)


def spans(batch: StepBatch) -> tuple[PooledSpan, ...]:
    """Where the tokens of the pooled rows stand in the step."""
    ends = np.cumsum(batch.lens)
    return tuple(
        PooledSpan(int(ends[row.index] - batch.lens[row.index]), int(ends[row.index]), row.mean, row.classify)
        for row in batch.pooled
    )
