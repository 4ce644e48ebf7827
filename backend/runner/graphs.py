"""Decode steps as CUDA graphs: one for each of some batch sizes, the whole step from token ids to token ids.

A step of fewer rows than a graph has is padded with rows that read and write page 0 and the spare token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from backend.attention.base import AttentionBackend
from backend.attention.sharing import Sharing
from backend.runner.captured import Recorder, StepEnds
from backend.runner.decode_rows import Rows, padded_sharing, padding, unshared
from backend.runner.step_inputs import StepInputs
from backend.runner.token_pool import TokenPool
from backend.transfer import FixedMemory, Uploader

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # from token ids and positions to hidden states

WARM_UP_RUNS = 2
LEAST_SHARED = 16  # rows of the smallest graph with shared prefixes


def graph_sizes(largest: int) -> list[int]:
    """Batch sizes worth a graph: all small ones, then in steps of about an eighth of the size."""
    steps = ((1, 8, 1), (8, 32, 4), (32, 64, 8), (64, 256, 16), (256, 512, 32), (512, largest + 1, 64))
    sizes = [size for start, end, step in steps for size in range(start, end, step) if size < largest]
    return [*sizes, largest]


class DecodeGraphs:
    """Captured decode steps. Everything runs on the stream that is current at each call, always the same one."""

    def __init__(
        self,
        forward: Forward,
        attention: AttentionBackend,
        pool: TokenPool,
        upload: Uploader,
        ends: StepEnds,
        sizes: Sequence[int],
        max_row_pages: int,
        *,
        pads: bool = True,
    ) -> None:
        self._forward, self._attention, self._pool, self._upload = forward, attention, pool, upload
        self._ends = ends
        self._sizes = sorted(set(sizes))
        self._shared_sizes = [size for size in self._sizes if size >= LEAST_SHARED and _is_power_of_two(size)]
        self._pads = pads
        self._graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] = {}  # by size, and whether prefixes are shared
        device, largest = pool.flat.device, self._sizes[-1]
        self._memory = FixedMemory(device)
        self._inputs = self._memory.region(3 * largest, torch.int64)  # places, positions, sampled places
        attention.reserve(largest, max_row_pages, self._memory)

    def size_for(self, rows: int) -> int | None:
        """The size of the graph for a step of ``rows``; None when there is none."""
        return self._fitting(self._sizes, rows)

    @torch.inference_mode()
    def capture(self, recorder: Recorder, *, progress: bool = True) -> None:
        """Capture every size, the largest first."""
        shares = self._shared_sizes if self._attention.shares else []
        jobs = [(size, False) for size in self._sizes[::-1]] + [(size, True) for size in shares[::-1]]
        bar = tqdm(jobs, desc="capturing decode graphs", unit="graph", disable=not progress, leave=False)
        for size, shared in bar:
            bar.set_postfix(rows=size)
            self._stage(padding(size, self._pool.spare), unshared(size) if shared else None)
            self._graphs[size, shared] = self._record(size, recorder)

    def _record(self, size: int, recorder: Recorder) -> torch.cuda.CUDAGraph:
        return recorder.record(lambda: self._step(size), WARM_UP_RUNS)

    def run(self, inputs: StepInputs, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Replay a graph of ``size`` rows, or a larger one with shared prefixes, for a decode step.

        Returns the logits ``[R, vocab]`` and the likeliest tokens (int64[R]), which are in the token pool already; both
        are overwritten by the next replay.
        """
        rows = Rows.of(inputs)
        count = len(rows.positions)
        sharing = self._attention.find_sharing(rows.layout) if count >= LEAST_SHARED // 2 else None
        shared_size = self._fitting(self._shared_sizes, count) if sharing is not None else None
        if sharing is None or shared_size is None:
            self._stage(rows.padded(size, self._pool.spare), None)
            self._graphs[size, False].replay()
            return self._ends.logits[:count], self._ends.tokens[:count]
        self._stage(
            rows.ordered(sharing.order).padded(shared_size, self._pool.spare), padded_sharing(sharing, shared_size)
        )
        self._graphs[shared_size, True].replay()
        return self._as_before(sharing.order)

    def _fitting(self, sizes: list[int], rows: int) -> int | None:
        at = bisect_left(sizes, rows)
        if at == len(sizes) or not (self._pads or sizes[at] == rows):
            return None
        return sizes[at]

    def _stage(self, rows: Rows, sharing: Sharing | None) -> None:
        """Put a step's inputs where the graph reads them."""
        arrays = (rows.places, rows.positions, rows.sampled_places)
        self._inputs.write(np.concatenate(arrays))
        if sharing is None:
            self._attention.plan_fixed(rows.layout)
        else:
            self._attention.plan_shared(rows.layout, sharing)
        self._memory.send()

    def _step(self, size: int) -> None:
        places, positions, sampled_places = self._inputs.tensor[: 3 * size].view(3, size)
        hidden = self._forward(self._pool.gather(places), positions)
        self._ends.reach(hidden, sampled_places)

    def _as_before(self, order: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """The results in the order that the rows had before they were grouped."""
        (back,) = self._upload(np.argsort(order))
        return self._ends.logits[back], self._ends.tokens[back]


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
