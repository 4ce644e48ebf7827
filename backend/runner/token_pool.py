"""The tokens of all slots, on the device: a step gathers its inputs here and scatters what it sampled.

So the host may launch the next step before it has seen a single token of this one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from backend.scheduler.slots import Slots
from backend.transfer import Uploader


class TokenPool:
    """``flat`` is int32 ``[slots * context]``; on the CPU it is the slots' own memory.

    On a GPU one more token stands behind them, at ``spare``, for rows of padding.
    """

    def __init__(self, slots: Slots, device: torch.device, upload: Uploader) -> None:
        self._upload = upload
        self.spare = slots.tokens.size
        if device.type == "cpu":
            self.flat = torch.from_numpy(slots.tokens).flatten()
        else:
            self.flat = torch.zeros(self.spare + 1, dtype=torch.int32, device=device)

    def upload(self, slots: Slots, rows: NDArray[np.int64]) -> None:
        """The known tokens of ``rows``, which no launched step refers to."""
        if not len(rows) or self.flat.device.type == "cpu":
            return
        known = slots.known[rows].astype(np.int64)
        ends = np.cumsum(known)
        offsets = np.arange(ends[-1]) - np.repeat(ends - known, known)
        row_of = np.repeat(rows, known)
        places, tokens = self._upload(row_of * slots.tokens.shape[1] + offsets, slots.tokens[row_of, offsets])
        self.flat.index_copy_(0, places, tokens)

    def gather(self, places: torch.Tensor) -> torch.Tensor:
        """Token ids at ``places`` (int64[T]), int64[T]."""
        return self.flat[places].long()

    def scatter(self, places: torch.Tensor, tokens: torch.Tensor) -> None:
        self.flat.index_copy_(0, places, tokens.to(torch.int32))
