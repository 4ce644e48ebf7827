"""The arrays of one step, built on the host from the slots before any token value of the step before is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import StepLayout
from backend.runner.logprobs import LogprobPlan
from backend.runner.mask import Mask
from backend.runner.pooling import PooledSpan, spans
from backend.runner.sampling_plan import SamplingPlan, SamplingPlanner
from backend.scheduler.batch import StepBatch
from backend.scheduler.slots import Slots


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What one step needs, its arrays on the host; nothing is a view of the slots, which change while it runs."""

    places: NDArray[np.int64]  # [T] flat index of each token in the token pool
    positions: NDArray[np.int64]  # [T] of each token in its row
    layout: StepLayout
    last: NDArray[np.int64] | None  # [S] index among the T tokens of each sampling row's last one; None: every token
    sampled_places: NDArray[np.int64]  # [S] where the sampled tokens go in the token pool
    sampling: SamplingPlan | None  # None when no row samples
    logprobs: LogprobPlan | None  # None when no row wants any
    pooled: tuple[PooledSpan, ...] = ()

    @property
    def is_decode(self) -> bool:
        """Every row computes one token and samples the next, and nobody asks for log probabilities of a prompt."""
        return self.last is None and not self.wants_prompt

    @property
    def wants_prompt(self) -> bool:
        """Hidden states are wanted of other tokens, too, than those behind which is sampled."""
        return bool(self.pooled) or (self.logprobs is not None and len(self.logprobs.hidden) > 0)


def build_inputs(batch: StepBatch, slots: Slots, planner: SamplingPlanner, device: torch.device) -> StepInputs:
    """Vectorised over the rows: the same few operations whatever the batch size."""
    page_size, width = slots.page_size, slots.tokens.shape[1]
    kv_lens = batch.starts + batch.lens
    if batch.num_tokens == len(batch.rows):  # one token each
        rows, positions, ends = batch.rows, batch.starts.astype(np.int64), None
    else:
        lens = batch.lens.astype(np.int64)
        ends = np.cumsum(lens)
        rows = np.repeat(batch.rows, lens)
        positions = np.arange(ends[-1]) - np.repeat(ends - lens - batch.starts, lens)
    pages = -(-int(kv_lens.max()) // page_size)
    layout = StepLayout(
        query_lens=torch.from_numpy(batch.lens),
        kv_lens=torch.from_numpy(kv_lens),
        page_table=torch.from_numpy(slots.page_table[:, :pages].take(batch.rows, axis=0)),
        locations=_locations(slots.page_table, rows, positions, page_size),
        window=_window_layout(batch, slots, rows, positions),
    )
    sampled = batch.samples.nonzero()[0]
    everyone = len(sampled) == len(batch.rows)
    sampling_rows, lengths = (batch.rows, kv_lens) if everyone else (batch.rows[sampled], kv_lens[sampled])
    places = rows * width + positions
    last: NDArray[np.int64] | None = None
    if ends is not None:
        last = ends[sampled] - 1
    elif not everyone:
        last = sampled
    return StepInputs(
        places=places,
        positions=positions,
        layout=layout,
        last=last,
        sampled_places=(places if last is None else places[last]) + 1,  # each behind its row's last token
        sampling=planner.plan(slots, sampling_rows, lengths, Mask.of(batch, device)) if len(sampled) else None,
        logprobs=LogprobPlan.plan(batch, slots, device) if batch.logprobs else None,
        pooled=spans(batch) if batch.pooled else (),
    )


def _locations(
    table: NDArray[np.int32], rows: NDArray[np.int64], positions: NDArray[np.int64], page_size: int
) -> torch.Tensor:
    page = positions // page_size
    # of the page, and the rest of the place
    return torch.from_numpy((table[rows, page] - page) * page_size + positions)


def _window_layout(
    batch: StepBatch, slots: Slots, rows: NDArray[np.int64], positions: NDArray[np.int64]
) -> StepLayout | None:
    """For the layers with a window, where those have pages of their own: each row from the first page that it holds."""
    if slots.window is None:
        return None
    table, first = slots.window.table, slots.window.first[batch.rows]
    kv_lens = batch.starts + batch.lens - first * slots.page_size
    pages = -(-int(kv_lens.max()) // slots.page_size)
    columns = np.minimum(first[:, None] + np.arange(pages), table.shape[1] - 1)
    return StepLayout(
        query_lens=torch.from_numpy(batch.lens),
        kv_lens=torch.from_numpy(kv_lens),
        page_table=torch.from_numpy(table[batch.rows[:, None], columns]),
        locations=_locations(table, rows, positions, slots.page_size),
    )
