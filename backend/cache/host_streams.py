"""Where copies between device and host run while steps do: in a thread, or on a CUDA stream of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

CopyLayer = Callable[[int], None]


class Arrival(Protocol):
    def wait(self) -> None:
        """What the caller computes from here on finds the copy made."""


class CopyStream(ABC):
    """Jobs run one after the other, each layer by layer."""

    @abstractmethod
    def submit(self, copy: CopyLayer, layers: int) -> Sequence[Arrival]:
        """Run ``copy`` for each layer, after the jobs before it and what the caller has computed. One arrival each."""

    def current(self) -> AbstractContextManager[object]:
        """While it is open, device memory that the caller takes is used again by later jobs only.

        What a job reads must be made here: what is made in the stream of the steps and dropped after :meth:`submit` is
        given to the next step, which does not wait for the job.
        """
        return nullcontext()


def copy_stream(device: torch.device) -> CopyStream:
    return CudaCopies(device) if device.type == "cuda" else ThreadCopies()


class _Made:
    def __init__(self) -> None:
        self.future: Future[None] = Future()

    def wait(self) -> None:
        self.future.result()


class ThreadCopies(CopyStream):
    """Stands for a GPU's copy engine. A job that fails fails everybody who waits for one of its layers."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="host-copies")

    def submit(self, copy: CopyLayer, layers: int) -> Sequence[Arrival]:
        arrivals = [_Made() for _ in range(layers)]
        self._thread.submit(self._run, copy, arrivals)
        return arrivals

    def _run(self, copy: CopyLayer, arrivals: list[_Made]) -> None:
        error: Exception | None = None
        for layer, arrival in enumerate(arrivals):
            try:
                if error is None:
                    copy(layer)
            except Exception as caught:
                error = caught
            if error is None:
                arrival.future.set_result(None)
            else:
                arrival.future.set_exception(error)


class _Event:
    def __init__(self) -> None:
        self.event = torch.cuda.Event()

    def wait(self) -> None:
        torch.cuda.current_stream().wait_event(self.event)


class CudaCopies(CopyStream):
    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def submit(self, copy: CopyLayer, layers: int) -> Sequence[Arrival]:
        arrivals = [_Event() for _ in range(layers)]
        self._stream.wait_stream(torch.cuda.current_stream())
        with self.current():
            for layer, arrival in enumerate(arrivals):
                copy(layer)
                arrival.event.record()
        return arrivals

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)
