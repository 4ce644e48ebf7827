"""The tokens of all slots, on the device: a step gathers its inputs here and scatters what it sampled.

So the host may launch the next step before it has seen a single token of this one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from backend.scheduler.slots import Slots


class TokenPool:
    """``[slots * context]`` int32. On the CPU it is the slots' own memory."""

    def __init__(self, slots: Slots, device: torch.device) -> None:
        self._host = torch.from_numpy(slots.tokens)
        self.flat = self._host.to(device).flatten()

    def upload(self, slots: Slots, rows: NDArray[np.int64]) -> None:
        """The known tokens of ``rows``, which no launched step refers to."""
        if self.flat.device.type == "cpu":
            return
        pool = self.flat.view(self._host.shape)
        for row in rows:
            known = int(slots.known[row])
            pool[row, :known].copy_(self._host[row, :known], non_blocking=True)

    def gather(self, places: torch.Tensor) -> torch.Tensor:
        """Token ids at ``places`` (int64[T]), int64[T]."""
        return self.flat[places].long()

    def scatter(self, places: torch.Tensor, tokens: torch.Tensor) -> None:
        self.flat[places] = tokens.to(torch.int32)
