"""What steps and graphs take on a GPU beside weights, keys and values: tried out before the KV pool is made.

The longest step is run and the largest graphs are captured over a pool of hardly any pages; then all of it goes.
Graphs share their memory for numbers, so the largest decides; what the driver keeps for each is counted for all.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from backend.attention.base import StepLayout
from backend.runner.step_inputs import StepInputs

logger = logging.getLogger(__name__)

TRIED_GRAPHS = 3
KINDS = 2  # of graphs with prompts


class Rehearsing(Protocol):
    """See :class:`backend.runner.model_runner.ModelRunner`."""

    def rehearse(self, tokens: int, longest: int) -> None: ...

    def capture(self, sizes: Sequence[int], max_row_pages: int, *, prompts: Sequence[int], progress: bool) -> None: ...


class Trial(NamedTuple):
    """A runner over hardly any pages, and what the real one will be asked for."""

    runner: Rehearsing
    tokens: int  # of one step
    longest: int  # of one row
    graphs: Sequence[int]  # rows of each
    prompts: Sequence[int]  # tokens of each graph of steps with prompts, of which there are two kinds
    max_row_pages: int


class Usage(NamedTuple):
    """Bytes in use on a GPU: all, and those that torch has none of."""

    total: int
    outside: int

    @staticmethod
    def now(device: torch.device) -> Usage:
        torch.cuda.synchronize(device)
        free, there = torch.cuda.mem_get_info(device)
        return Usage(there - free, there - free - torch.cuda.memory_reserved(device))


def bytes_of_steps(make: Callable[[], Trial], usage: Callable[[], Usage]) -> int:
    """The most bytes that steps and graphs will take. ``ValueError`` when not even a step fits."""
    release()
    before = usage()
    try:
        found = _taken(make(), before, usage)
    except torch.OutOfMemoryError:
        raise ValueError(
            "not enough memory for a whole step beside the weights; lower --chunked-prefill-size or "
            "--cuda-graph-max-bs, free memory, or choose a smaller model"
        ) from None
    release()
    return max(found, 0)


def _taken(trial: Trial, before: Usage, usage: Callable[[], Usage]) -> int:
    trial.runner.rehearse(trial.tokens, trial.longest)
    stepped = captured = usage()
    tried, prompts = sorted(trial.graphs)[-TRIED_GRAPHS:], sorted(trial.prompts)[-1:]
    if tried:
        trial.runner.capture(tried, trial.max_row_pages, prompts=prompts, progress=False)
        captured = usage()
    count, wanted = len(tried) + KINDS * len(prompts), len(trial.graphs) + KINDS * len(trial.prompts)
    each = max(captured.outside - stepped.outside, 0) // max(count, 1)
    found = captured.total - before.total + each * (wanted - count)
    logger.info("a step of %d tokens and %d graphs take %d MiB", trial.tokens, wanted, found >> 20)
    return found


def release() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def step_of(tokens: int, longest: int, page_size: int) -> StepInputs:
    """Prompts of ``longest`` tokens, the last one shorter, that read and write page 0 and the token at place 0."""
    lens = np.full(-(-tokens // longest), longest, np.int32)
    lens[-1] = tokens - longest * (len(lens) - 1)
    layout = StepLayout(
        query_lens=torch.from_numpy(lens),
        kv_lens=torch.from_numpy(lens),
        page_table=torch.zeros(len(lens), -(-int(lens.max()) // page_size), dtype=torch.int32),
        locations=torch.zeros(tokens, dtype=torch.int64),
    )
    last = np.cumsum(lens, dtype=np.int64) - 1
    positions = np.concatenate([np.arange(length, dtype=np.int64) for length in lens])
    nowhere = np.zeros(tokens, np.int64)
    return StepInputs(nowhere, positions, layout, last, nowhere[: len(lens)], sampling=None, logprobs=None)
