"""From logits to tokens, for a whole batch at once.

Order of the steps, as in SGLang: penalties, logit bias, forbidden stop tokens, grammar, temperature, top-k, top-p,
min-p, draw. The draw inverts the cumulative distribution at one uniform number per row, which depends on the request's
seed and position only.
"""

from __future__ import annotations

import torch

from backend.runner.penalties import apply_penalties
from backend.runner.sampling_plan import SamplingPlan


def sample(logits: torch.Tensor, plan: SamplingPlan, pool: torch.Tensor) -> torch.Tensor:
    """One token for each row of ``logits`` (floating, ``[R, vocab]``; float32 ones may be changed in place): int64[R].

    ``pool`` is the flat token pool, from which penalties read what the rows hold.
    """
    if not plan.greedy:
        logits = logits.float()
    if plan.penalties is not None:
        apply_penalties(logits, plan.penalties, pool)
    if plan.row.bias is not None:
        bias = plan.row.bias
        logits.index_put_((bias.rows, bias.tokens), bias.values, accumulate=True)
    if plan.forbidden is not None:
        logits.index_put_(plan.forbidden, logits.new_full((), float("-inf")))
    if plan.mask is not None:
        plan.mask.apply(logits)
    greedy = logits.argmax(dim=-1)
    if plan.row.hot is None or plan.uniform is None:
        return greedy
    probabilities = torch.softmax(logits / plan.row.temperature[:, None], dim=-1)
    if plan.row.top_k is None and plan.row.top_p is None:
        drawn = _draw(_drop_unlikely(probabilities, plan.row.min_p), plan.uniform)
    else:
        drawn = _draw_sorted(probabilities, plan, plan.uniform)
    return torch.where(plan.row.hot, drawn, greedy)


def _draw_sorted(probabilities: torch.Tensor, plan: SamplingPlan, at: torch.Tensor) -> torch.Tensor:
    """Draw with top-k and top-p, which need the probabilities in order."""
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    if plan.row.top_k is not None:
        ranks = torch.arange(ordered.shape[-1], device=ordered.device)
        ordered = ordered.masked_fill(ranks >= plan.row.top_k[:, None], 0.0)
    if plan.row.top_p is not None:
        # A token stays when the ones before it do not yet reach top_p of what top_k left.
        total = ordered.sum(dim=-1, keepdim=True)
        before = ordered.cumsum(dim=-1) - ordered
        beyond = before >= plan.row.top_p[:, None] * total
        beyond[:, 0] = False
        ordered = ordered.masked_fill(beyond, 0.0)
    place = _draw(_drop_unlikely(ordered, plan.row.min_p), at)
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
    drawn = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    return drawn.clamp_(max=weights.shape[-1] - 1)  # a row of zeros or NaN has no such place
