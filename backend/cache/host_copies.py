"""Carries out the tree's :class:`Transfers` beside the steps, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from backend.cache.host_moves import Move, Transfers
from backend.cache.host_pool import HostPool
from backend.cache.host_streams import Arrival, copy_stream
from backend.cache.kv_pool import KVPool
from backend.transfer import Uploader

CopyPages = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]


class _Job(NamedTuple):
    to_host: bool
    source: torch.Tensor  # int64[pages], where the copying runs
    target: torch.Tensor


class HostCopies:
    """Used where steps run, in their order: by one thread, with the stream of the steps current."""

    def __init__(self, pool: KVPool, host: HostPool) -> None:
        self._pool = pool
        self._host = host
        self._device = pool.keys[0].device
        self._stream = copy_stream(self._device)
        self._copy_pages = _copy_pages_for(self._device)
        self._upload = Uploader(self._device)
        self._last: Sequence[Arrival] = ()  # of the last job; those before it are done when it begins
        self._awaited: Sequence[Arrival] = ()  # what the step waits for, layer by layer

    def start(self, transfers: Transfers) -> None:
        """Before a step: begin its transfers, and note what it must wait for."""
        if transfers.moves:
            with self._stream.current():  # else a step could take the numbers' memory while copies read it
                jobs = [self._job(group) for group in grouped(transfers.moves)]
            self._last = self._stream.submit(partial(self._copy, jobs), len(self._pool.keys))
        if transfers.fence:
            self._awaited = self._last

    def wait(self, layer: int) -> None:
        """Before a step reads or writes the pages of ``layer``, the one after ``layer - 1``."""
        if self._awaited:
            self._awaited[layer].wait()
            if layer == len(self._awaited) - 1:
                self._awaited = ()

    def wait_all(self) -> None:
        """The same for all layers at once."""
        for layer in range(len(self._awaited)):
            self.wait(layer)

    def _job(self, moves: Sequence[Move]) -> _Job:
        device = np.concatenate([move.device for move in moves]).astype(np.int64)
        host = np.concatenate([move.host for move in moves]).astype(np.int64)
        to_host = moves[0].to_host
        source, target = (device, host) if to_host else (host, device)
        return _Job(to_host, *self._upload(source, target))

    @torch.inference_mode()
    def _copy(self, jobs: Sequence[_Job], layer: int) -> None:
        for job in jobs:
            for device, host in zip(self._pool.storage(layer), self._host.layers[layer], strict=True):
                source, target = (device, host) if job.to_host else (host, device)
                self._copy_pages(source, job.source, target, job.target)


def grouped(moves: Sequence[Move]) -> list[list[Move]]:
    """Neighbours that go the same way and write different pages, which may be copied at once."""
    groups: list[list[Move]] = []
    written: set[int] = set()
    for move in moves:
        targets = set((move.host if move.to_host else move.device).tolist())
        if not groups or groups[-1][0].to_host != move.to_host or written & targets:
            groups.append([])
            written = set()
        groups[-1].append(move)
        written |= targets
    return groups


def _copy_pages_for(device: torch.device) -> CopyPages:
    if device.type == "cuda":
        from backend.cache.host_kernel import copy_pages

        return copy_pages
    return _copy_pages


def _copy_pages(source: torch.Tensor, source_pages: torch.Tensor, target: torch.Tensor, pages: torch.Tensor) -> None:
    """``target[pages] = source[source_pages]``."""
    if source.dtype.itemsize == 1:  # torch copies no 8-bit floats by index, but bytes
        source, target = source.view(torch.uint8), target.view(torch.uint8)
    target.index_copy_(0, pages, source.index_select(0, source_pages))
