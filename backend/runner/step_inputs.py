"""The arrays of one step, built on the host from the slots before any token value of the step before is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from backend.attention.base import StepLayout
from backend.runner.logprobs import LogprobPlan
from backend.runner.sampling_plan import SamplingPlan, SamplingPlanner
from backend.scheduler.batch import StepBatch
from backend.scheduler.slots import Slots


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What the device needs for one step; nothing in it is a view of the slots, which change while the step runs."""

    places: torch.Tensor  # int64[T] flat index of each token in the token pool
    positions: torch.Tensor  # int64[T] of each token in its row
    layout: StepLayout
    last: torch.Tensor  # int64[S] index among the T tokens of the last one of each sampling row
    sampled_places: torch.Tensor  # int64[S] where the sampled tokens go in the token pool
    sampling: SamplingPlan | None  # None when no row samples
    logprobs: LogprobPlan | None  # None when no row wants any


def build_inputs(batch: StepBatch, slots: Slots, planner: SamplingPlanner, device: torch.device) -> StepInputs:
    """Vectorised over the rows: the same few operations whatever the batch size."""
    page_size, width = slots.page_size, slots.tokens.shape[1]
    kv_lens = batch.starts + batch.lens
    if batch.num_tokens == len(batch.rows):  # a decode step: one token each
        rows, positions, ends = batch.rows, batch.starts.astype(np.int64), None
    else:
        lens = batch.lens.astype(np.int64)
        ends = np.cumsum(lens)
        rows = np.repeat(batch.rows, lens)
        positions = np.arange(ends[-1]) - np.repeat(ends - lens - batch.starts, lens)
    page = positions // page_size
    locations = slots.page_table[rows, page] * np.int64(page_size) + (positions - page * page_size)
    pages = -(-int(kv_lens.max()) // page_size)
    layout = StepLayout(
        query_lens=torch.from_numpy(batch.lens),
        kv_lens=torch.from_numpy(kv_lens),
        page_table=torch.from_numpy(slots.page_table[batch.rows, :pages]),
        locations=torch.from_numpy(locations),
    )
    sampled = batch.samples.nonzero()[0]
    everyone = len(sampled) == len(batch.rows)
    sampling_rows, lengths = (batch.rows, kv_lens) if everyone else (batch.rows[sampled], kv_lens[sampled])
    return StepInputs(
        places=_to(rows * width + positions, device),
        positions=_to(positions, device),
        layout=layout,
        last=_to(sampled if ends is None else ends[sampled] - 1, device),
        sampled_places=_to(sampling_rows * width + lengths, device),
        sampling=planner.plan(slots, sampling_rows, lengths) if len(sampled) else None,
        logprobs=LogprobPlan.plan(batch, slots, device) if batch.logprobs else None,
    )


def _to(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)
