"""What the Triton kernels of one step read, and where captured steps find it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import AttentionShape
from backend.transfer import Region

ALIGNMENT = 4  # int32 numbers: each list starts at 16 bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """What parts of rows give before they are merged: float32[parts, heads * value size] and float32[parts, heads]."""

    out: torch.Tensor
    log: torch.Tensor


@dataclass(frozen=True, slots=True)
class Decode:
    """The rows with one new token, as each window cuts them: int32[3, programs], int32[R + 1]."""

    rows: int
    cuts: dict[int | None, tuple[torch.Tensor, torch.Tensor]]
    parts: Parts


@dataclass(frozen=True, slots=True)
class Prefill:
    """The rows with several new tokens."""

    blocks: dict[AttentionShape, torch.Tensor]  # int32[2, blocks]
    rows: torch.Tensor  # int32[3, R] of all rows of the step
    longest: int  # new tokens of one row


@dataclass(frozen=True, slots=True)
class Step:
    locations: torch.Tensor  # int32[T]
    table: torch.Tensor  # int32[R, width]
    width: torch.Tensor  # int32[1]
    decode: Decode | None
    prefill: Prefill | None


@dataclass(frozen=True, slots=True)
class Room:
    """What captured steps read and write."""

    lists: Region
    parts: Parts

    def hold(self, lists: Sequence[NDArray[np.int32]]) -> list[torch.Tensor]:
        """The lists one behind the other, where they will be when the memory has been sent."""
        starts = starts_of(lists)
        joined = np.zeros(starts[-1], np.int32)
        for start, numbers in zip(starts[:-1], lists, strict=True):
            joined[start : start + numbers.size] = numbers.ravel()
        self.lists.write(joined)
        fixed = self.lists.tensor
        return [fixed[a : a + x.size].view(x.shape) for a, x in zip(starts[:-1], lists, strict=True)]


def starts_of(lists: Sequence[NDArray[np.int32]]) -> list[int]:
    """Where each list starts when they stand one behind the other, and the end of the last."""
    starts = [0]
    for numbers in lists:
        starts.append(starts[-1] + -(-numbers.size // ALIGNMENT) * ALIGNMENT)
    return starts
