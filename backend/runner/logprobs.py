"""Log probabilities of sampled and of prompt tokens, for the rows whose requests want them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from backend.messages import LogprobSpec
from backend.scheduler.batch import LogprobRow, Places, RowLogprobs, StepBatch
from backend.scheduler.slots import Slots
from backend.transfer import to_device

PLACES_AT_ONCE = 1024  # of prompts: the logits of a whole step of them would be gigabytes


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
    """One row's places, in order."""

    prompt: tuple[PlaceTensors, ...]
    output: tuple[PlaceTensors, ...]

    def logprobs(self) -> RowLogprobs:
        """Once the tensors have arrived."""
        prompt, output = ([place for part in parts for place in part.places()] for parts in (self.prompt, self.output))
        return RowLogprobs(prompt, output)


def row_logprobs(
    plan: LogprobPlan,
    prompt_logits: Callable[[torch.Tensor], torch.Tensor],
    logits: torch.Tensor,
    sampled: torch.Tensor,
) -> list[RowTensors]:
    """``prompt_logits`` gives those of some of ``plan.hidden``; ``logits`` ``[S, vocab]`` of the model, ``sampled``
    int64[S].
    """
    prompts = _prompt_parts(plan, prompt_logits)
    outputs = (
        (_places(spec, logits[index : index + 1], sampled[index : index + 1]),) if index >= 0 else ()
        for spec, index in zip(plan.specs, plan.sampled, strict=True)
    )
    return [RowTensors(tuple(prompt), output) for prompt, output in zip(prompts, outputs, strict=True)]


def _prompt_parts(plan: LogprobPlan, logits_at: Callable[[torch.Tensor], torch.Tensor]) -> list[list[PlaceTensors]]:
    """For each row the parts that its prompt places fall into, however long it is."""
    found: list[list[PlaceTensors]] = [[] for _ in plan.specs]
    ends = list(itertools.accumulate(plan.counts))
    for first in range(0, len(plan.hidden), PLACES_AT_ONCE):
        logits = logits_at(plan.hidden[first : first + PLACES_AT_ONCE])
        for spec, end, count, parts in zip(plan.specs, ends, plan.counts, found, strict=True):
            begin, behind = max(end - count, first), min(end, first + len(logits))
            if begin < behind:
                parts.append(_places(spec, logits[begin - first : behind - first], plan.targets[begin:behind]))
    return found


def _places(spec: LogprobSpec, logits: torch.Tensor, tokens: torch.Tensor) -> PlaceTensors:
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    best = logprobs.topk(min(spec.top, logprobs.shape[-1]), dim=-1)
    asked = to_device(np.array(spec.ids, np.int64), logits.device)
    parts = (logprobs.gather(-1, tokens[:, None])[:, 0], best.values, best.indices, logprobs[:, asked])
    return PlaceTensors(*(part.to("cpu", non_blocking=True) for part in parts))
