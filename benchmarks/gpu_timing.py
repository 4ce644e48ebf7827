"""Time of device work, and what the device does at best: copy bandwidth and the rate of matrix products, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

WARM_UP = 3
REPEATS = 7
SECONDS_OF_A_SAMPLE = 2e-3
MOST_CALLS = 50


def seconds(call: Callable[[], object], *, capture: bool = True) -> float:
    """Median time of ``call``: replays of a CUDA graph of several, so that launches do not count, unless told not to.

    On the CPU one call is timed: that shows that it runs, not how fast.
    """
    if not torch.cuda.is_available():
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
        once = _elapsed(call, stream)
        calls = max(1, min(MOST_CALLS, int(SECONDS_OF_A_SAMPLE / once)))
        several = _captured(call, calls, stream) if capture else _repeated(call, calls)
        several()
        return median(_elapsed(several, stream) for _ in range(REPEATS)) / calls


def _elapsed(call: Callable[[], object], stream: torch.cuda.Stream) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record(stream)
    call()
    end.record(stream)
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _captured(call: Callable[[], object], calls: int, stream: torch.cuda.Stream) -> Callable[[], object]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(calls):
            call()
    return graph.replay


def _repeated(call: Callable[[], object], calls: int) -> Callable[[], object]:
    def several() -> None:
        for _ in range(calls):
            call()

    return several


@dataclass(frozen=True, slots=True)
class Roof:
    """Bytes and operations a second."""

    bandwidth: float
    rate: float

    def share(self, took: float, *, moved: float, operations: float) -> float:
        """Of the time that the device would take at best, given the least bytes to move and operations to do."""
        return max(moved / self.bandwidth, operations / self.rate) / took

    @staticmethod
    def measured(device: torch.device, size: int) -> Roof:
        """With copies of ``32 * size**2`` bytes and bfloat16 products of matrices of ``size``."""
        source = torch.randn(8 * size * size, device=device)
        target = torch.empty_like(source)
        copy = seconds(lambda: target.copy_(source), capture=False)  # a graph's copies are slower
        a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        out = torch.empty_like(a)
        product = seconds(lambda: torch.mm(a, b, out=out))
        return Roof(2 * source.nbytes / copy, 2 * size**3 / product)
