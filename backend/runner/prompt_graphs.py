"""Steps with prompts as CUDA graphs: one for each of some numbers of tokens, from token ids to token ids.

Without a graph the host needs longer to launch a short step than the GPU to compute it. Tokens that a step lacks to its
graph's size are those of one more row, which reads and writes page 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from backend.attention.base import AttentionBackend, PaddedSize, StepLayout
from backend.models.base import CausalLM
from backend.runner.captured import Recorder, StepEnds
from backend.runner.step_inputs import StepInputs
from backend.runner.token_pool import TokenPool
from backend.transfer import FixedMemory

WARM_UP_RUNS = 1
SMALLEST = 32  # tokens
FEW_ROWS = 16  # of steps without rows of one token
MOST_PAIRS = 1 << 23  # of a new token and one that it sees: from there on other attention saves more than a graph does


def prompt_sizes(largest: int) -> list[int]:
    """Numbers of tokens worth a graph: powers of two, and from 128 on three more between two of them."""
    sizes, step = [SMALLEST, 2 * SMALLEST, 3 * SMALLEST], SMALLEST
    while sizes[-1] < largest:
        sizes += [4 * step + i * step for i in range(4)]
        step *= 2
    return [size for size in sizes if size <= largest]


class PromptGraphs:
    """Captured steps with prompts. Everything runs on the stream that is current at each call, always the same one."""

    def __init__(
        self,
        model: CausalLM,
        attention: AttentionBackend,
        pool: TokenPool,
        ends: StepEnds,
        sizes: Sequence[int],
        max_row_pages: int,
        page_size: int,
    ) -> None:
        """No size is larger than the context, so that the row of padding has pages enough."""
        self._page_size = page_size
        self._model, self._attention, self._pool, self._ends = model, attention, pool, ends
        self._sizes = sorted(set(sizes))
        self._max_rows = len(ends.tokens)
        self._graphs: dict[PaddedSize, torch.cuda.CUDAGraph] = {}
        largest = self._size(self._sizes[-1], singles=True)
        self._memory = FixedMemory(pool.flat.device)
        # places, positions, kept, sampled places
        self._inputs = self._memory.region(2 * largest.tokens + 2 * largest.rows, torch.int64)
        attention.reserve_padded(largest, max_row_pages, self._memory)

    def _size(self, tokens: int, *, singles: bool) -> PaddedSize:
        return PaddedSize(tokens, min(self._max_rows if singles else FEW_ROWS, self._max_rows, tokens), singles)

    def size_for(self, inputs: StepInputs) -> PaddedSize | None:
        """The size of the graph for a step; None when there is none, or when it would not pay."""
        tokens, layout = len(inputs.positions), inputs.layout
        if inputs.last is None or inputs.wants_prompt or tokens > self._sizes[-1]:
            return None
        lens, kv_lens = layout.query_lens.numpy(), layout.kv_lens.numpy()
        fitting = self._sizes[bisect_left(self._sizes, tokens)]
        size = self._size(fitting, singles=bool(lens[0] == 1) or len(lens) > FEW_ROWS)
        pairs = int((lens[lens > 1].astype(np.int64) * kv_lens[lens > 1]).sum())
        return size if len(lens) <= size.rows and pairs <= MOST_PAIRS else None

    @torch.inference_mode()
    def capture(self, recorder: Recorder, *, progress: bool = True) -> None:
        """Capture every size, the largest first."""
        jobs = [self._size(tokens, singles=singles) for tokens in self._sizes[::-1] for singles in (True, False)]
        bar = tqdm(jobs, desc="capturing prompt graphs", unit="graph", disable=not progress, leave=False)
        for size in bar:
            bar.set_postfix(tokens=size.tokens)
            nobody = np.empty(0, np.int64)
            self._stage(size, nobody, nobody, nobody, nobody, _nothing())
            self._graphs[size] = self._record(size, recorder)

    def _record(self, size: PaddedSize, recorder: Recorder) -> torch.cuda.CUDAGraph:
        return recorder.record(lambda: self._step(size), WARM_UP_RUNS)

    def run(self, inputs: StepInputs, size: PaddedSize) -> tuple[torch.Tensor, torch.Tensor]:
        """Replay the graph of :meth:`size_for`.

        Returns the logits ``[S, vocab]`` and likeliest tokens (int64[S]) of the sampling rows, as decode graphs do.
        """
        last = np.empty(0, np.int64) if inputs.last is None else inputs.last
        self._stage(size, inputs.places, inputs.positions, last, inputs.sampled_places, inputs.layout)
        self._graphs[size].replay()
        return self._ends.logits[: len(last)], self._ends.tokens[: len(last)]

    def _stage(
        self,
        size: PaddedSize,
        places: NDArray[np.int64],
        positions: NDArray[np.int64],
        kept: NDArray[np.int64],
        sampled_places: NDArray[np.int64],
        layout: StepLayout,
    ) -> None:
        """Put a step's inputs where the graph reads them."""
        spare, pads = self._pool.spare, size.tokens - len(places)
        parts = (
            _filled(places, size.tokens, spare),
            _filled(positions, size.tokens, 0),
            _filled(kept, size.rows, 0),
            _filled(sampled_places, size.rows, spare),
        )
        self._inputs.write(np.concatenate(parts))
        self._attention.plan_padded(padded(layout, pads, self._page_size) if pads else layout, size)
        self._memory.send()

    def _step(self, size: PaddedSize) -> None:
        given = self._inputs.tensor[: 2 * size.tokens + 2 * size.rows]
        places, positions, kept, sampled_places = given.split((size.tokens, size.tokens, size.rows, size.rows))
        hidden = self._model(self._pool.gather(places), positions, self._attention, kept)
        self._ends.reach(hidden, sampled_places)


def padded(layout: StepLayout, count: int, page_size: int) -> StepLayout:
    """With one more row, of ``count`` tokens, which reads and writes page 0."""
    more = torch.tensor([count], dtype=torch.int32)
    rows, width = layout.page_table.shape
    table = layout.page_table.new_zeros(rows + 1, max(width, -(-count // page_size)))
    table[:rows, :width] = layout.page_table
    return StepLayout(
        query_lens=torch.cat((layout.query_lens, more)),
        kv_lens=torch.cat((layout.kv_lens, more)),
        page_table=table,
        locations=torch.cat((layout.locations, layout.locations.new_zeros(count))),
        window=None if layout.window is None else padded(layout.window, count, page_size),
    )


def _nothing() -> StepLayout:
    """No rows."""
    none = torch.empty(0, dtype=torch.int32)
    return StepLayout(none, none, none.view(0, 1), none.long())


def _filled(numbers: NDArray[np.int64], count: int, value: int) -> NDArray[np.int64]:
    return np.concatenate((numbers, np.full(count - len(numbers), value, np.int64)))
