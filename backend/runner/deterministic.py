"""Batch-invariant steps (``--enable-deterministic-inference``): what is computed of a request never depends on others.

Matrix products round differently for different numbers of rows. So a step is cut into pieces of fixed shapes: a prompt
is computed in blocks that begin at multiples of the block size, each alone; rows that decode go in groups of one size,
filled up with copies of a row. A position is thus always computed in the same shape, also when its request starts again
or finds a part of its prompt in the cache. Neither the place in a group nor the neighbours' values change a row's
numbers; attention must be computed row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.scheduler.batch import AllowedTokens, LaunchedStep, LogprobRow, PooledRow, RowLogprobs, StepBatch
from backend.scheduler.loop import StepRunner
from backend.scheduler.slots import Slots

GROUP = 16  # decode rows of a group


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens ``start .. end - 1`` of the batch's row ``index``."""

    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Piece:
    parts: tuple[_Part, ...]
    launched: LaunchedStep
    batch: StepBatch


class DeterministicRunner:
    """Launches each batch as several fixed-shape ones with ``runner``."""

    def __init__(self, runner: StepRunner, block: int, group: int = GROUP) -> None:
        self._runner = runner
        self._block = block
        self._group = group

    def launch(self, batch: StepBatch, slots: Slots) -> LaunchedStep:
        """Start computing ``batch``; ``slots`` is not read after the call."""
        pieces: list[_Piece] = []
        for parts in self._cut(batch, slots):
            size = 1 if slots.prompt_len[batch.rows[parts[0].index]] > parts[0].start else self._group
            piece = _piece_of(batch, parts, size, first=not pieces)
            pieces.append(_Piece(parts, self._runner.launch(piece, slots), piece))
        return _Pieces(batch, pieces)

    def _cut(self, batch: StepBatch, slots: Slots) -> Iterator[tuple[_Part, ...]]:
        """Prompt blocks one by one, then the tokens after the prompts: each row's first, second, ..., in groups."""
        waves: list[list[_Part]] = []
        for index, (row, start, length) in enumerate(zip(batch.rows, batch.starts, batch.lens, strict=True)):
            end, prompt = int(start + length), int(slots.prompt_len[row])
            for begin, stop in _blocks(int(start), min(end, prompt), self._block):
                yield (_Part(index, begin, stop),)
            for wave, position in enumerate(range(max(int(start), prompt), end)):
                if wave == len(waves):
                    waves.append([])
                waves[wave].append(_Part(index, position, position + 1))
        for parts in waves:
            # Only rows that sample have logits, so they stand in groups of their own.
            for samples in (False, True):
                alike = tuple(part for part in parts if _samples(batch, part) == samples)
                yield from (alike[i : i + self._group] for i in range(0, len(alike), self._group))


def _blocks(start: int, end: int, block: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min((start // block + 1) * block, end)
        yield start, stop
        start = stop


def _samples(batch: StepBatch, part: _Part) -> bool:
    """Whether the row samples at the end of ``part``."""
    return bool(batch.samples[part.index]) and _is_last(batch, part)


def _is_last(batch: StepBatch, part: _Part) -> bool:
    return part.end == batch.starts[part.index] + batch.lens[part.index]


def _piece_of(batch: StepBatch, parts: Sequence[_Part], size: int, *, first: bool) -> StepBatch:
    """``parts`` as a batch of ``size`` rows, the last one repeated: it writes the same numbers to the same places."""
    filled = [*parts, *[parts[-1]] * (size - len(parts))]
    indices = np.array([part.index for part in filled])
    starts = np.array([part.start for part in filled], np.int32)
    lens = np.array([part.end - part.start for part in filled], np.int32)
    return replace(
        batch,
        rows=batch.rows[indices],
        starts=starts,
        lens=lens,
        samples=np.array([_samples(batch, part) for part in filled]),
        generations=batch.generations[indices],
        in_prompt=None,
        num_tokens=int(lens.sum()),
        logprobs=tuple(_logprob_rows(batch, parts)),
        pooled=tuple(_pooled_rows(batch, parts)),
        fresh=batch.fresh if first else batch.fresh[:0],
        allowed=_allowed(batch, filled),
        transfers=batch.transfers if first else None,
    )


def _logprob_rows(batch: StepBatch, parts: Sequence[_Part]) -> Iterator[LogprobRow]:
    wanted = {row.index: row for row in batch.logprobs}
    for index, part in enumerate(parts):
        if (row := wanted.get(part.index)) is not None:
            first, last = max(row.first, part.start + 1), min(row.last, part.end + 1)
            yield LogprobRow(index, row.spec, min(first, last), last)


def _pooled_rows(batch: StepBatch, parts: Sequence[_Part]) -> Iterator[PooledRow]:
    wanted = {row.index: row for row in batch.pooled}
    for index, part in enumerate(parts):
        if (row := wanted.get(part.index)) is not None and (row.mean or _is_last(batch, part)):
            yield replace(row, index=index, last=row.last and _is_last(batch, part))


def _allowed(batch: StepBatch, parts: Sequence[_Part]) -> AllowedTokens | None:
    if batch.allowed is None:
        return None
    places = {int(row): i for i, row in enumerate(batch.allowed.rows)}
    found = [i for i, part in enumerate(parts) if part.index in places and _samples(batch, part)]
    if not found:
        return None
    allowed, wanted = batch.allowed, [places[parts[i].index] for i in found]
    return AllowedTokens(np.array(found, np.int64), lambda: allowed.bits[wanted])


class _Pieces:
    """The results of a batch's pieces, as one step's."""

    def __init__(self, batch: StepBatch, pieces: Sequence[_Piece]) -> None:
        self._batch = batch
        self._pieces = pieces

    def tokens(self) -> NDArray[np.int32]:
        tokens = np.zeros(len(self._batch.rows), np.int32)
        for piece in self._pieces:
            for part, token in zip(piece.parts, piece.launched.tokens(), strict=False):  # copies come last
                if _samples(self._batch, part):
                    tokens[part.index] = token
        return tokens

    def logprobs(self) -> list[RowLogprobs]:
        found = {row.index: RowLogprobs([], []) for row in self._batch.logprobs}
        for piece in self._pieces:
            if piece.batch.logprobs:
                for row, result in zip(piece.batch.logprobs, piece.launched.logprobs(), strict=True):
                    places = found[piece.parts[row.index].index]
                    places.prompt.extend(result.prompt)
                    places.output.extend(result.output)
        return list(found.values())

    def pooled(self) -> list[NDArray[np.float32]]:
        found: dict[int, NDArray[np.float32]] = {}
        for piece in self._pieces:
            if piece.batch.pooled:
                for row, vector in zip(piece.batch.pooled, piece.launched.pooled(), strict=True):
                    index = piece.parts[row.index].index
                    found[index] = found[index] + vector if index in found else vector
        return [found[row.index] for row in self._batch.pooled]
