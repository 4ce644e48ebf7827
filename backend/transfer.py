"""Arrays from the host to the device, without waiting for the device.

A copy from ordinary memory may wait; one from pinned memory does not, and so its source must not change until the copy
has been made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

ALIGNMENT = 16  # bytes
SLOTS = 4  # of the ring: steps whose arrays may be on their way at once
FIRST_BYTES = 1 << 16
SMALL_GAP = 1 << 14  # bytes


def to_device(array: NDArray, device: torch.device) -> torch.Tensor:
    """A small array, now and then. On the CPU it is the same memory."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


class Uploader:
    """Copies the arrays of one step at once. On the CPU it gives the arrays' own memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ring = None if device.type == "cpu" else _Ring()

    def __call__(self, *arrays: NDArray) -> list[torch.Tensor]:
        """The arrays as tensors on the device, ready for what is launched on the current stream from here on."""
        if self._ring is None:
            return [torch.from_numpy(array) for array in arrays]
        starts, total = _offsets(arrays)
        moved = torch.empty(total, dtype=torch.uint8, device=self._device)
        slot = self._ring.next()
        staged = slot.room(total)
        for array, start in zip(arrays, starts, strict=True):
            staged[start : start + array.nbytes] = _bytes(array)
        slot.send((0, moved))
        return [
            moved[start : start + array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
            for array, start in zip(arrays, starts, strict=True)
        ]


class FixedMemory:
    """Memory that captured steps read, at addresses that never change; what a step needs comes in one copy or a few.

    Regions are asked for first; the memory is taken when the first of them is written or read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ring = None if device.type == "cpu" else _Ring()
        self._size = 0
        self._memory: torch.Tensor | None = None
        self._slot: _PinnedSlot | None = None  # that the next copies are made from
        self._written: list[tuple[int, int]] = []  # for them, bytes from and to

    def region(self, count: int, dtype: torch.dtype) -> Region:
        """Room for ``count`` numbers. ``RuntimeError`` once the memory is in use."""
        if self._memory is not None:
            raise RuntimeError("the memory is in use; all regions come before the first write")
        start, self._size = self._size, self._size + _aligned(count * dtype.itemsize)
        return Region(self, start, count, dtype)

    def part(self, start: int, size: int) -> torch.Tensor:
        """uint8 ``[size]``."""
        if self._memory is None:
            self._memory = torch.zeros(self._size, dtype=torch.uint8, device=self._device)
        return self._memory[start : start + size]

    def write(self, start: int, numbers: NDArray[np.uint8]) -> None:
        end = start + len(numbers)
        if self._ring is None:
            self.part(start, len(numbers)).copy_(torch.from_numpy(numbers))
            return
        if self._slot is None:
            self._slot = self._ring.next()
        self._slot.room(self._size)[start:end] = numbers
        self._written.append((start, end))

    def send(self) -> None:
        """Copy what was written since the last time to the device. On the CPU it is there already."""
        if self._slot is not None:
            spans = [(start, self.part(start, end - start)) for start, end in _joined(self._written)]
            self._slot.send(*spans)
        self._slot, self._written = None, []


class Region:
    """A part of a :class:`FixedMemory`."""

    def __init__(self, memory: FixedMemory, start: int, count: int, dtype: torch.dtype) -> None:
        """``start`` in bytes, ``count`` in numbers."""
        self._memory, self._start, self._count, self._dtype = memory, start, count, dtype

    @cached_property
    def tensor(self) -> torch.Tensor:
        """``[count]``, always the same memory."""
        return self._memory.part(self._start, self._count * self._dtype.itemsize).view(self._dtype)

    def write(self, array: NDArray) -> None:
        """What stands in front of it once the memory has been sent; numbers of the same width."""
        self._memory.write(self._start, _bytes(array))


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, as one where so little is between them that a copy more would take longer."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start - found[-1][1] <= SMALL_GAP:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


class _Ring:
    """Pinned memory of several steps, used in turn."""

    def __init__(self) -> None:
        self._slots = [_PinnedSlot() for _ in range(SLOTS)]
        self._next = 0

    def next(self) -> _PinnedSlot:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % SLOTS
        return slot


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

    def send(self, *parts: tuple[int, torch.Tensor]) -> None:
        """Copy to each tensor of bytes what stands here from its place on."""
        for start, target in parts:
            target.copy_(self._memory[start : start + len(target)], non_blocking=True)
        self._sent.record()


def _bytes(array: NDArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _offsets(arrays: Sequence[NDArray]) -> tuple[list[int], int]:
    """Where each array starts when they stand one after the other, and the bytes of all."""
    starts, end = [], 0
    for array in arrays:
        starts.append(end)
        end += _aligned(array.nbytes)
    return starts, end


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
