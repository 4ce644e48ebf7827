"""Attention whose numbers for a row depend on that row alone: batches never change them."""

from __future__ import annotations

from collections.abc import Sequence

from backend.attention.torch_sdpa import TorchSDPA


class RowByRow(TorchSDPA):
    """Rows with one token, too, are attended to one by one, so that no neighbour's length pads them."""

    def batched_rows(self, query_lens: Sequence[int]) -> int:
        return 0
