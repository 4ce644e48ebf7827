"""Where steps run, one after the other in the order of their launch: here, in one thread, or on a CUDA stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, Protocol, TypeVar

import torch

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Pending(Protocol[T_co]):
    def result(self) -> T_co:
        """Wait for the step; raises what it raised."""


class StepStream(ABC):
    @abstractmethod
    def submit(self, step: Callable[[], T]) -> Pending[T]:
        """Run ``step`` after the ones before it."""

    def current(self) -> AbstractContextManager[object]:
        """While it is open, device work of the caller stands in the order of the steps."""
        return nullcontext()


def step_stream(device: torch.device, *, overlap: bool) -> StepStream:
    """A CUDA stream on a GPU; on the CPU a thread with ``overlap``, and the caller's own without."""
    if device.type == "cuda":
        return CudaStream(device)
    return WorkerThread() if overlap else CallerThread()


class _Done(Generic[T]):
    def __init__(self, value: T) -> None:
        self._value = value

    def result(self) -> T:
        return self._value


class CallerThread(StepStream):
    def submit(self, step: Callable[[], T]) -> Pending[T]:
        return _Done(step())


class WorkerThread(StepStream):
    """Stands for a GPU's stream: the caller goes on meanwhile."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="step")

    def submit(self, step: Callable[[], T]) -> Pending[T]:
        return self._thread.submit(step)


class _Landing(Generic[T]):
    """What a step copies to the host is there once its event is."""

    def __init__(self, value: T, event: torch.cuda.Event) -> None:
        self._value = value
        self._event = event

    def result(self) -> T:
        self._event.synchronize()
        return self._value


class CudaStream(StepStream):
    """Steps put their kernels on one stream; nobody waits until the values are wanted."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def submit(self, step: Callable[[], T]) -> Pending[T]:
        event = torch.cuda.Event()
        with self.current():
            value = step()
            event.record()
        return _Landing(value, event)

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self.stream)
