"""One step on the device: build the step's tensors, run the model, sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import AttentionBackend, StepLayout
from backend.models.base import CausalLM
from backend.runner.sampler import plan_sampling, sample
from backend.scheduler.batch import StepBatch
from backend.scheduler.slots import Slots


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """The tokens of a step that was computed at once."""

    sampled: NDArray[np.int32]

    def tokens(self) -> NDArray[np.int32]:
        return self.sampled


class ModelRunner:
    """Computes steps on the calling thread."""

    def __init__(self, model: CausalLM, attention: AttentionBackend, page_size: int, device: torch.device) -> None:
        self._model = model
        self._attention = attention
        self._page_size = page_size
        self._device = device

    @torch.inference_mode()
    def launch(self, batch: StepBatch, slots: Slots) -> FinishedStep:
        """Compute ``batch`` before returning."""
        lens = batch.lens.astype(np.int64)
        ends = np.cumsum(lens)
        rows = np.repeat(batch.rows, lens)
        positions = np.arange(ends[-1]) - np.repeat(ends - lens - batch.starts, lens)
        page, offset = np.divmod(positions, self._page_size)
        locations = slots.page_table[rows, page].astype(np.int64) * self._page_size + offset
        kv_lens = batch.starts + batch.lens
        self._attention.plan(
            StepLayout(
                query_lens=torch.from_numpy(batch.lens),
                kv_lens=torch.from_numpy(kv_lens),
                page_table=torch.from_numpy(slots.page_table[batch.rows, : -(-int(kv_lens.max()) // self._page_size)]),
                locations=torch.from_numpy(locations),
            )
        )
        ids = torch.from_numpy(slots.tokens[rows, positions]).to(self._device, torch.int64)
        hidden = self._model(ids, torch.from_numpy(positions).to(self._device), self._attention)

        sampled = np.zeros(len(batch.rows), np.int32)
        if batch.samples.any():
            last = torch.from_numpy(ends[batch.samples] - 1).to(self._device)
            logits = self._model.logits(hidden[last])
            rows, lengths = batch.rows[batch.samples], kv_lens[batch.samples]
            plan = plan_sampling(slots, rows, lengths, logits.shape[-1], self._device)
            sampled[batch.samples] = sample(logits, plan).cpu().numpy()
        return FinishedStep(sampled)
