"""Frequency, presence and repetition penalties, from the tokens that the rows hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from backend.scheduler.slots import Slots
from backend.transfer import to_device


@dataclass(frozen=True, slots=True)
class Penalties:
    """Penalties of the rows that have any. Positions say where in the token pool each of their tokens stands."""

    rows: torch.Tensor  # int64[P] rows of the logits
    token_rows: torch.Tensor  # int64[N] index into rows, for each token
    token_places: torch.Tensor  # int64[N] flat index into the token pool
    is_output: torch.Tensor  # bool[N]
    frequency: torch.Tensor  # float32[P, 1]
    presence: torch.Tensor  # float32[P, 1]
    repetition: torch.Tensor  # float32[P, 1]

    @staticmethod
    def any(slots: Slots, rows: NDArray[np.int64]) -> bool:
        """Whether any of ``rows`` is penalised."""
        return bool(_penalised(slots, rows).any())

    @staticmethod
    def plan(slots: Slots, rows: NDArray[np.int64], lengths: NDArray[np.int32], device: torch.device) -> Penalties:
        """Penalties of those of ``rows`` that have any; ``lengths`` are their known lengths."""
        penalised = _penalised(slots, rows).nonzero()[0]
        chosen, lens = rows[penalised], lengths[penalised].astype(np.int64)
        token_rows = np.repeat(np.arange(len(chosen)), lens)
        positions = np.arange(lens.sum()) - np.repeat(np.cumsum(lens) - lens, lens)
        places = np.repeat(chosen, lens) * slots.tokens.shape[1] + positions

        def column(array: NDArray[np.float32]) -> torch.Tensor:
            return to_device(array[chosen], device)[:, None]

        return Penalties(
            rows=to_device(penalised, device),
            token_rows=to_device(token_rows, device),
            token_places=to_device(places, device),
            is_output=to_device(positions >= np.repeat(slots.prompt_len[chosen], lens), device),
            frequency=column(slots.frequency_penalty),
            presence=column(slots.presence_penalty),
            repetition=column(slots.repetition_penalty),
        )


def _penalised(slots: Slots, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    counted = (slots.frequency_penalty[rows] != 0) | (slots.presence_penalty[rows] != 0)
    return counted | (slots.repetition_penalty[rows] != 1)


def apply_penalties(logits: torch.Tensor, penalties: Penalties, pool: torch.Tensor) -> None:
    """Change ``logits`` in place. Frequency and presence count output tokens, repetition prompt and output."""
    chosen = logits[penalties.rows]
    tokens = pool[penalties.token_places].long()
    counts = torch.zeros_like(chosen)
    counts.index_put_((penalties.token_rows, tokens), penalties.is_output.float(), accumulate=True)
    seen = torch.zeros_like(chosen, dtype=torch.bool)
    seen[penalties.token_rows, tokens] = True
    chosen -= counts * penalties.frequency + (counts > 0) * penalties.presence
    repeated = torch.where(chosen > 0, chosen / penalties.repetition, chosen * penalties.repetition)
    logits[penalties.rows] = torch.where(seen, repeated, chosen)
