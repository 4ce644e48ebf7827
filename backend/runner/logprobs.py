"""Log probabilities of sampled and of prompt tokens, for the rows whose requests want them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from backend.messages import LogprobSpec
from backend.scheduler.batch import LogprobRow, Places, RowLogprobs, StepBatch
from backend.scheduler.slots import Slots
from backend.transfer import to_device


@dataclass(frozen=True, slots=True)
class LogprobPlan:
    """Where the logits of each row's places stand and which tokens stand there.

    One entry a row of ``batch.logprobs``.
    """

    specs: tuple[LogprobSpec, ...]
    hidden: torch.Tensor  # int64[N] index among the step's tokens, of every prompt place of every row
    targets: torch.Tensor  # int64[N] the prompt tokens there
    counts: tuple[int, ...]  # prompt places of each row
    sampled: tuple[int, ...]  # index of each row among the sampling ones, -1 where it does not sample

    @staticmethod
    def plan(batch: StepBatch, slots: Slots, device: torch.device) -> LogprobPlan:
        begins = np.cumsum(batch.lens) - batch.lens
        order = np.cumsum(batch.samples) - 1
        hidden = [_hidden(batch, row, int(begins[row.index])) for row in batch.logprobs]
        targets = [slots.tokens[batch.rows[row.index], row.first : row.last] for row in batch.logprobs]
        return LogprobPlan(
            specs=tuple(row.spec for row in batch.logprobs),
            hidden=to_device(np.concatenate(hidden).astype(np.int64), device),
            targets=to_device(np.concatenate(targets).astype(np.int64), device),
            counts=tuple(row.last - row.first for row in batch.logprobs),
            sampled=tuple(int(order[row.index]) if batch.samples[row.index] else -1 for row in batch.logprobs),
        )


def _hidden(batch: StepBatch, row: LogprobRow, begin: int) -> np.ndarray:
    """The hidden state before a token tells its probability."""
    offset = begin - int(batch.starts[row.index]) - 1
    return np.arange(row.first, row.last) + offset


@dataclass(frozen=True, slots=True)
class PlaceTensors:
    """What is asked of some places, on its way to the host: ``own`` [N], ``values`` and ``ids`` [N, top], ``asked``."""

    own: torch.Tensor
    values: torch.Tensor
    ids: torch.Tensor
    asked: torch.Tensor

    def places(self) -> Places:
        """Once the tensors have arrived."""
        top = zip(self.values.tolist(), self.ids.tolist(), strict=True)
        pairs = [list(zip(*place, strict=True)) for place in top]
        return list(zip(self.own.tolist(), pairs, self.asked.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class RowTensors:
    """One row's places; None where there are none."""

    prompt: PlaceTensors | None
    output: PlaceTensors | None

    def logprobs(self) -> RowLogprobs:
        """Once the tensors have arrived."""
        return RowLogprobs(*([] if part is None else part.places() for part in (self.prompt, self.output)))


def row_logprobs(
    plan: LogprobPlan, prompt_logits: torch.Tensor, logits: torch.Tensor, sampled: torch.Tensor
) -> list[RowTensors]:
    """``prompt_logits`` float ``[N, vocab]`` as planned; ``logits`` ``[S, vocab]`` of the model, ``sampled``
    int64[S].
    """
    results, start = [], 0
    for spec, count, index in zip(plan.specs, plan.counts, plan.sampled, strict=True):
        rows = slice(start, start + count)
        prompt = _places(spec, prompt_logits[rows], plan.targets[rows])
        output = _places(spec, logits[index : index + 1], sampled[index : index + 1]) if index >= 0 else None
        results.append(RowTensors(prompt, output))
        start += count
    return results


def _places(spec: LogprobSpec, logits: torch.Tensor, tokens: torch.Tensor) -> PlaceTensors | None:
    if not len(tokens):
        return None
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    best = logprobs.topk(min(spec.top, logprobs.shape[-1]), dim=-1)
    asked = to_device(np.array(spec.ids, np.int64), logits.device)
    parts = (logprobs.gather(-1, tokens[:, None])[:, 0], best.values, best.indices, logprobs[:, asked])
    return PlaceTensors(*(part.to("cpu", non_blocking=True) for part in parts))
