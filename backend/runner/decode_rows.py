"""The rows of a decode step as a CUDA graph takes them: padded to its size, or grouped by what they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import StepLayout
from backend.attention.sharing import Sharing
from backend.runner.step_inputs import StepInputs


@dataclass(frozen=True, slots=True)
class Rows:
    """One token a row; see :class:`StepInputs`."""

    places: NDArray[np.int64]
    positions: NDArray[np.int64]
    sampled_places: NDArray[np.int64]
    layout: StepLayout

    @staticmethod
    def of(inputs: StepInputs) -> Rows:
        return Rows(inputs.places, inputs.positions, inputs.sampled_places, inputs.layout)

    def ordered(self, order: NDArray[np.int64]) -> Rows:
        """Row ``order[i]`` at place ``i``."""
        layout = self.layout.rows(torch.from_numpy(order))
        return Rows(self.places[order], self.positions[order], self.sampled_places[order], layout)

    def padded(self, size: int, spare: int) -> Rows:
        """With rows of padding behind, ``size`` in all."""
        count = len(self.positions)
        if count == size:
            return self
        more = padding(size - count, spare)
        return Rows(
            np.concatenate((self.places, more.places)),
            np.concatenate((self.positions, more.positions)),
            np.concatenate((self.sampled_places, more.sampled_places)),
            self.layout.followed_by(more.layout),
        )


def padding(count: int, spare: int) -> Rows:
    """Rows that read and write page 0 and the token at ``spare``."""
    spares, ones = np.full(count, spare, np.int64), torch.ones(count, dtype=torch.int32)
    layout = StepLayout(ones, ones, torch.zeros(count, 1, dtype=torch.int32), torch.zeros(count, dtype=torch.int64))
    return Rows(spares, np.zeros(count, np.int64), spares, layout)


def unshared(count: int) -> Sharing:
    """One group whose prefix has no pages."""
    return Sharing(np.arange(count), np.array([0, count], np.int32), (np.empty(0, np.int32),))


def padded_sharing(sharing: Sharing, size: int) -> Sharing:
    """Rows of padding belong to the last group, whose prefix has no pages."""
    bounds = sharing.bounds.copy()
    bounds[-1] = size
    return Sharing(sharing.order, bounds, sharing.pages)
