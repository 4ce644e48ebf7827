"""Arrays from the host to the device, without waiting for the device.

A copy from ordinary memory may wait; one from pinned memory does not, and so its source must not change until the copy
has been made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

ALIGNMENT = 16  # bytes
SLOTS = 4  # of the ring: steps whose arrays may be on their way at once
FIRST_BYTES = 1 << 16


def to_device(array: NDArray, device: torch.device) -> torch.Tensor:
    """A small array, now and then. On the CPU it is the same memory."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


class Uploader:
    """Copies the arrays of one step at once. On the CPU it gives the arrays' own memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ring = None if device.type == "cpu" else [_PinnedSlot() for _ in range(SLOTS)]
        self._next = 0

    def __call__(self, *arrays: NDArray) -> list[torch.Tensor]:
        """The arrays as tensors on the device, ready for what is launched on the current stream from here on."""
        if self._ring is None:
            return [torch.from_numpy(array) for array in arrays]
        starts, total = _offsets(arrays)
        moved = torch.empty(total, dtype=torch.uint8, device=self._device)
        self._copy(arrays, starts, moved)
        return [
            moved[start : start + array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
            for array, start in zip(arrays, starts, strict=True)
        ]

    def into(self, target: torch.Tensor, array: NDArray) -> None:
        """Copy ``array`` to the front of ``target``, a contiguous tensor of its dtype with one dimension."""
        if self._ring is None:
            target[: len(array)].copy_(torch.from_numpy(array))
        else:
            self._copy([array], [0], target[: len(array)].view(torch.uint8))

    def _copy(self, arrays: Sequence[NDArray], starts: Sequence[int], target: torch.Tensor) -> None:
        if self._ring is None:
            raise RuntimeError("there is no ring on the CPU")
        slot = self._ring[self._next]
        self._next = (self._next + 1) % SLOTS
        staged = slot.room(len(target))
        for array, start in zip(arrays, starts, strict=True):
            staged[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        slot.send(target)


class _PinnedSlot:
    """Pinned memory, and the event after which it may be written again."""

    def __init__(self) -> None:
        self._memory = torch.empty(FIRST_BYTES, dtype=torch.uint8, pin_memory=True)
        self._sent = torch.cuda.Event()

    def room(self, size: int) -> NDArray[np.uint8]:
        """``size`` bytes to write; waits for the copy before, which has long been made as a rule."""
        self._sent.synchronize()
        if size > len(self._memory):
            self._memory = torch.empty(1 << (size - 1).bit_length(), dtype=torch.uint8, pin_memory=True)
        return self._memory.numpy()[:size]

    def send(self, target: torch.Tensor) -> None:
        target.copy_(self._memory[: len(target)], non_blocking=True)
        self._sent.record()


def _offsets(arrays: Sequence[NDArray]) -> tuple[list[int], int]:
    """Where each array starts when they stand one after the other, and the bytes of all."""
    starts, end = [], 0
    for array in arrays:
        starts.append(end)
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return starts, end
