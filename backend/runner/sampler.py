"""From logits to tokens, for a whole batch at once.

Order of the steps, as in SGLang: penalties, forbidden stop tokens, temperature, top-k, top-p, min-p, draw. The draw
inverts the cumulative distribution at one uniform number per row, which depends on the request's seed and position
only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from backend.runner.penalties import Penalties, apply_penalties
from backend.runner.random_uniform import uniform
from backend.scheduler.slots import Slots


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """What the sampling of one step needs; made on the CPU before the step's values are known. One entry a row."""

    temperature: torch.Tensor  # float32[R]; 0 means greedy
    top_k: torch.Tensor | None  # int64[R], None when no row limits it
    top_p: torch.Tensor | None
    min_p: torch.Tensor | None
    uniform: torch.Tensor  # float32[R]
    penalties: Penalties | None
    forbidden: tuple[torch.Tensor, torch.Tensor] | None  # (row, token) pairs: stop tokens before min_new_tokens
    all_greedy: bool


def plan_sampling(
    slots: Slots, rows: NDArray[np.int64], lengths: NDArray[np.int32], vocab_size: int, device: torch.device
) -> SamplingPlan:
    """Plan for ``rows``, whose known lengths are ``lengths`` (the sampled token stands at that position)."""
    temperature = slots.temperature[rows]
    top_k = np.where(slots.top_k[rows] > 0, np.minimum(slots.top_k[rows], vocab_size), vocab_size)
    top_p, min_p = slots.top_p[rows], slots.min_p[rows]

    def on_device(array: NDArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return SamplingPlan(
        temperature=on_device(temperature),
        top_k=on_device(top_k.astype(np.int64)) if (top_k < vocab_size).any() else None,
        top_p=on_device(top_p) if (top_p < 1).any() else None,
        min_p=on_device(min_p) if (min_p > 0).any() else None,
        uniform=on_device(uniform(slots.seed[rows], lengths)),
        penalties=Penalties.plan(slots, rows, lengths, device),
        forbidden=_forbidden(slots, rows, lengths, device),
        all_greedy=not (temperature > 0).any(),
    )


def _forbidden(
    slots: Slots, rows: NDArray[np.int64], lengths: NDArray[np.int32], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    early = lengths < slots.min_known[rows]
    if not early.any():
        return None
    ids = np.where(early[:, None], slots.stop_ids[rows], -1)
    row, column = np.nonzero(ids >= 0)
    return torch.from_numpy(row).to(device), torch.from_numpy(ids[row, column].astype(np.int64)).to(device)


def sample(logits: torch.Tensor, plan: SamplingPlan) -> torch.Tensor:
    """One token for each row of ``logits`` (float32 ``[R, vocab]``, may be changed in place): int64[R]."""
    if plan.penalties is not None:
        apply_penalties(logits, plan.penalties)
    if plan.forbidden is not None:
        logits.index_put_(plan.forbidden, torch.tensor(float("-inf"), device=logits.device))
    greedy = logits.argmax(dim=-1)
    if plan.all_greedy:
        return greedy
    hot = plan.temperature > 0
    probabilities = torch.softmax(logits / torch.where(hot, plan.temperature, 1.0)[:, None], dim=-1)
    if plan.top_k is None and plan.top_p is None:
        drawn = _draw(_drop_unlikely(probabilities, plan.min_p), plan.uniform)
    else:
        drawn = _draw_sorted(probabilities, plan)
    return torch.where(hot, drawn, greedy)


def _draw_sorted(probabilities: torch.Tensor, plan: SamplingPlan) -> torch.Tensor:
    """Draw with top-k and top-p, which need the probabilities in order."""
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    if plan.top_k is not None:
        ranks = torch.arange(ordered.shape[-1], device=ordered.device)
        ordered = ordered.masked_fill(ranks >= plan.top_k[:, None], 0.0)
    if plan.top_p is not None:
        # A token stays when the ones before it do not yet reach top_p of what top_k left.
        total = ordered.sum(dim=-1, keepdim=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= plan.top_p[:, None] * total, 0.0)
    place = _draw(_drop_unlikely(ordered, plan.min_p), plan.uniform)
    return tokens.gather(-1, place[:, None])[:, 0]


def _drop_unlikely(probabilities: torch.Tensor, min_p: torch.Tensor | None) -> torch.Tensor:
    if min_p is None:
        return probabilities
    threshold = probabilities.amax(dim=-1, keepdim=True) * min_p[:, None]
    return probabilities.masked_fill(probabilities < threshold, 0.0)


def _draw(weights: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Index drawn from each row's unnormalised ``weights`` by inverting the cumulative sum at ``at`` in [0, 1)."""
    cumulative = weights.cumsum(dim=-1)
    # Strictly below the total, so that rounding never lands on a weight of zero past the last positive one.
    total = cumulative[:, -1]
    target = torch.minimum(at * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
