"""What the sampling of one step needs, made on the host before the values of the step before are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from backend.runner.mask import Mask
from backend.runner.penalties import Penalties
from backend.scheduler.seeds import uniform
from backend.scheduler.slots import Slots
from backend.transfer import to_device

DRAWN_AHEAD = 16  # steps


@dataclass(frozen=True, slots=True)
class Bias:
    """What ``logit_bias`` adds: ``values`` float32[N] at (``rows``, ``tokens``), int64[N] each."""

    rows: torch.Tensor
    tokens: torch.Tensor
    values: torch.Tensor

    @staticmethod
    def of(slots: Slots, rows: NDArray[np.int64], vocab_size: int, device: torch.device) -> Bias | None:
        found = [(i, slots.logit_bias[slot]) for i, slot in enumerate(rows.tolist()) if slot in slots.logit_bias]
        if not found:
            return None
        places = np.concatenate([np.full(len(bias.tokens), i, np.int64) for i, bias in found])
        tokens = np.concatenate([bias.tokens for _, bias in found])
        values = np.concatenate([bias.values for _, bias in found])
        known = (tokens >= 0) & (tokens < vocab_size)
        return Bias(
            to_device(places[known], device), to_device(tokens[known], device), to_device(values[known], device)
        )


@dataclass(frozen=True, slots=True)
class RowSampling:
    """The parameters of some rows, which stay the same for the rows' whole run. One entry a row."""

    temperature: torch.Tensor  # float32[R]; 1 for greedy rows, whose draw is not used
    hot: torch.Tensor | None  # bool[R] rows that draw; None when all are greedy
    top_k: torch.Tensor | None  # int64[R], None when no row limits it
    top_p: torch.Tensor | None  # float32[R], the same
    min_p: torch.Tensor | None
    limited: torch.Tensor | None  # bool[R] rows that draw with any of the three; a row's way is that of its own
    bias: Bias | None
    penalised: bool
    min_known: int  # the largest known length below which some row may not stop; 0 when all may at once

    @staticmethod
    def of(slots: Slots, rows: NDArray[np.int64], vocab_size: int, device: torch.device) -> RowSampling:
        temperature, top_p, min_p = slots.temperature[rows], slots.top_p[rows], slots.min_p[rows]
        top_k = np.where(slots.top_k[rows] > 0, np.minimum(slots.top_k[rows], vocab_size), vocab_size)
        hot = temperature > 0
        limited = hot & ((top_k < vocab_size) | (top_p < 1) | (min_p > 0))

        def on_device(array: NDArray, wanted: NDArray[np.bool_]) -> torch.Tensor | None:
            return to_device(array, device) if wanted.any() else None

        return RowSampling(
            temperature=to_device(np.where(hot, temperature, np.float32(1.0)), device),
            hot=on_device(hot, hot),
            top_k=on_device(top_k.astype(np.int64), top_k < vocab_size),
            top_p=on_device(top_p, top_p < 1),
            min_p=on_device(min_p, min_p > 0),
            limited=on_device(limited, limited),
            bias=Bias.of(slots, rows, vocab_size, device) if slots.logit_bias else None,
            penalised=Penalties.any(slots, rows),
            min_known=int(slots.min_known[rows].max()) if (slots.min_known[rows] > slots.prompt_len[rows]).any() else 0,
        )


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """:class:`RowSampling`, and what belongs to this step's positions."""

    row: RowSampling
    uniform: torch.Tensor | None  # float32[R]; None when all rows are greedy
    penalties: Penalties | None
    forbidden: tuple[torch.Tensor, torch.Tensor] | None  # (row, token) pairs: stop tokens before min_new_tokens
    mask: Mask | None = None

    @property
    def greedy(self) -> bool:
        """Every row takes the model's likeliest token: nothing to draw, nothing to add."""
        return self.row.hot is None and not self.touches

    @property
    def touches(self) -> bool:
        """Something is added to logits, or tokens are forbidden."""
        parts = (self.penalties, self.forbidden, self.row.bias, self.mask)
        return any(part is not None for part in parts)


class SamplingPlanner:
    """Makes plans; between steps of the same rows only what moves is made anew."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._version = -1  # of the slots, and the rows, that what is kept below belongs to
        self._rows = np.empty(0, np.int64)
        self._row: RowSampling | None = None
        self._draws: tuple[NDArray[np.int32], Sequence[torch.Tensor]] | None = None  # lengths [k, R], numbers [R] each

    def plan(
        self, slots: Slots, rows: NDArray[np.int64], lengths: NDArray[np.int32], mask: Mask | None = None
    ) -> SamplingPlan:
        """Plan for ``rows``, whose known lengths are ``lengths`` (the sampled token stands at that position)."""
        row = self._row
        if row is None or self._version != slots.version or not _same(rows, self._rows):
            row = self._row = RowSampling.of(slots, rows, self._vocab_size, self._device)
            self._version, self._rows, self._draws = slots.version, rows, None
        return SamplingPlan(
            row=row,
            uniform=self._uniform(slots.seed, rows, lengths) if row.hot is not None else None,
            penalties=Penalties.plan(slots, rows, lengths, self._device) if row.penalised else None,
            forbidden=self._forbidden(slots, rows, lengths)
            if row.min_known and lengths.min() < row.min_known
            else None,
            mask=mask,
        )

    def _uniform(self, seeds: NDArray[np.uint64], rows: NDArray[np.int64], lengths: NDArray[np.int32]) -> torch.Tensor:
        """One number a row. Rows usually move on by one token a step, so some steps are drawn ahead at once."""
        if self._draws is not None:
            known, numbers = self._draws
            step = int(lengths[0]) - int(known[0, 0])
            if 0 <= step < DRAWN_AHEAD and _same(lengths, known[step]):
                return numbers[step]
        known = lengths + np.arange(DRAWN_AHEAD, dtype=np.int32)[:, None]
        numbers = to_device(uniform(seeds[rows], known), self._device).unbind()
        self._draws = known, numbers
        return numbers[0]

    def _forbidden(
        self, slots: Slots, rows: NDArray[np.int64], lengths: NDArray[np.int32]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        early = (lengths < slots.min_known[rows]).nonzero()[0]
        index, tokens = slots.stops_of(rows[early])
        row, tokens = early[index][tokens < self._vocab_size], tokens[tokens < self._vocab_size]
        if not len(row):
            return None
        return to_device(row, self._device), to_device(tokens, self._device)


def _same(a: NDArray, b: NDArray) -> bool:
    return a is b or (len(a) == len(b) and not np.count_nonzero(a != b))
