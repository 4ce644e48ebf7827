"""One call that ``benchmarks.gpu_kernels`` measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    work: str
    kernel: str
    call: Callable[[], object]
    moved: float  # bytes: every input read once, every output written once
    operations: float
    captures: bool = True  # whether a CUDA graph can hold the call


Cases = Iterator[Callable[[], Case]]
