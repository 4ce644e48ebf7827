"""Copying a checkpoint's tensors to where they belong, in several threads.

What ``safetensors`` gives is mapped from the file: reading it is part of the copy, so that threads share that too.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

MOST_THREADS = 8
STAGE_BYTES = 16 << 20  # of pinned memory, for each thread


class Copies:
    """Copies on their way; leaving the block waits for all of them and raises what the first failed one raised."""

    def __init__(self, threads: int | None = None) -> None:
        count = threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="load")
        self._room = threading.BoundedSemaphore(2 * count)  # tensors of GGUF files are unpacked in memory
        self._pending: list[Future[None]] = []
        self._stages = threading.local()

    def copy(self, place: torch.Tensor, tensor: torch.Tensor) -> None:
        """Copy ``tensor`` (on the CPU) to ``place``, converted to its dtype. Waits while too many are on their way."""
        self._room.acquire()
        self._pending.append(self._pool.submit(self._copy, place, tensor))

    def _copy(self, place: torch.Tensor, tensor: torch.Tensor) -> None:
        try:
            if place.device.type == "cuda":
                self._stage(place.device).copy(place, tensor)
            else:
                place.copy_(tensor)
        finally:
            self._room.release()

    def _stage(self, device: torch.device) -> Stage:
        stage: Stage | None = getattr(self._stages, "stage", None)
        if stage is None:
            stage = self._stages.stage = Stage(device)
        return stage

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for copy in self._pending:
                copy.result()


class Stage:
    """One thread's way to a GPU: a pinned buffer of two halves, one being filled while the other is sent."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.default_stream(device))  # which may still write to reused memory
        self._halves = torch.empty(2, STAGE_BYTES // 2, dtype=torch.uint8, pin_memory=True)
        self._sent = (torch.cuda.Event(), torch.cuda.Event())
        self._turn = 0

    def copy(self, place: torch.Tensor, tensor: torch.Tensor) -> None:
        """Returns when ``place`` is filled."""
        with torch.cuda.stream(self._stream):
            straight = place.dtype == tensor.dtype and place.is_contiguous()
            landing = place if straight else torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
            source, target = (part.reshape(-1).view(torch.uint8) for part in (tensor.contiguous(), landing))
            for start in range(0, len(source), STAGE_BYTES // 2):
                self._send(source[start : start + STAGE_BYTES // 2], target[start : start + STAGE_BYTES // 2])
            if not straight:
                place.copy_(landing)
            self._stream.synchronize()

    def _send(self, source: torch.Tensor, target: torch.Tensor) -> None:
        half, sent = self._halves[self._turn][: len(source)], self._sent[self._turn]
        sent.synchronize()
        half.copy_(source)
        target.copy_(half, non_blocking=True)
        sent.record(self._stream)
        self._turn = 1 - self._turn
