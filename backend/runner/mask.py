"""What grammars leave to sample, on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from backend.scheduler.batch import StepBatch
from backend.transfer import to_device


@dataclass(frozen=True, slots=True)
class Mask:
    """What ``rows`` (int64[G]) that follow a grammar may sample.

    ``words`` gives int32 ``[G, words]`` of bits. It computes them when called: the logits are under way by then.
    """

    rows: torch.Tensor
    words: Callable[[], torch.Tensor]

    @staticmethod
    def of(batch: StepBatch, device: torch.device) -> Mask | None:
        """Rows are counted among the sampling ones."""
        if batch.allowed is None:
            return None
        allowed, order = batch.allowed, np.cumsum(batch.samples) - 1
        return Mask(to_device(order[allowed.rows], device), lambda: to_device(allowed.bits, device))

    def apply(self, logits: torch.Tensor) -> None:
        """Forbid all other tokens, in place. What a row may say at all comes before a minimum of tokens."""
        shifts = torch.arange(32, dtype=torch.int32, device=logits.device)
        bits = (self.words()[:, :, None] >> shifts) & 1
        forbidden = bits.flatten(1)[:, : logits.shape[-1]] == 0
        left = logits[self.rows].masked_fill(forbidden, float("-inf"))
        stuck = left.amax(dim=-1, keepdim=True) == float("-inf")
        logits[self.rows] = left.masked_fill(stuck & ~forbidden, 0.0)
