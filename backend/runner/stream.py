"""Where steps run, one after the other in the order of their launch: here, in one thread, or on a CUDA stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, NoReturn, Protocol, TypeVar

import torch

from backend.scheduler.batch import DeviceLost

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Pending(Protocol[T_co]):
    def result(self) -> T_co:
        """Wait for the step; raises what it raised."""


class StepStream(ABC):
    @abstractmethod
    def submit(self, step: Callable[[], T]) -> Pending[T]:
        """Run ``step`` after the ones before it. What it raises is told by its result, also when it ran at once."""

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


class _Failed:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self) -> NoReturn:
        raise self._error


class CallerThread(StepStream):
    def submit(self, step: Callable[[], T]) -> Pending[T]:
        try:
            return _Done(step())
        except Exception as error:
            return _Failed(error)


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
        try:
            self._event.synchronize()
        except RuntimeError as error:
            raise DeviceLost("the GPU failed in a step") from error
        return self._value


class CudaStream(StepStream):
    """Steps put their kernels on one stream; nobody waits until the values are wanted.

    Memory that was not there costs the step alone. After any other error of the GPU nothing works in this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def submit(self, step: Callable[[], T]) -> Pending[T]:
        event = torch.cuda.Event()
        with self.current():
            try:
                value = step()
            except torch.OutOfMemoryError as error:
                return _Failed(error)
            event.record()
        return _Landing(value, event)

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self.stream)
