"""From logits to tokens, for a whole batch at once.

Order of the steps, as in SGLang: penalties, logit bias, forbidden stop tokens, grammar, temperature, top-k, top-p,
min-p, draw. The draw inverts the cumulative distribution at one uniform number per row, which depends on the request's
seed and position only.
"""

from __future__ import annotations

import torch

from backend.runner.draw import draw_from_logits_on, draw_on
from backend.runner.penalties import apply_penalties
from backend.runner.sampling_plan import RowSampling, SamplingPlan


def sample(logits: torch.Tensor, plan: SamplingPlan, pool: torch.Tensor) -> torch.Tensor:
    """One token for each row of ``logits`` (floating, ``[R, vocab]``; float32 ones may be changed in place): int64[R].

    ``pool`` is the flat token pool, from which penalties read what the rows hold.
    """
    row, at = plan.row, plan.uniform
    if plan.touches:
        logits = logits.float()
    if plan.penalties is not None:
        apply_penalties(logits, plan.penalties, pool)
    if row.bias is not None:
        logits.index_put_((row.bias.rows, row.bias.tokens), row.bias.values, accumulate=True)
    if plan.forbidden is not None:
        logits.index_put_(plan.forbidden, logits.new_full((), float("-inf")))
    if plan.mask is not None:
        plan.mask.apply(logits)
    if row.hot is None or at is None:
        return logits.argmax(dim=-1)
    straight = draw_from_logits_on(logits.device)
    if straight is None:
        return torch.where(row.hot, _draw_from_probabilities(logits, row, at), logits.argmax(dim=-1))
    tokens = straight(logits, row.temperature, row.hot, at)
    if row.limited is None:
        return tokens
    return torch.where(row.limited, _draw_from_probabilities(logits, row, at), tokens)


def _draw_from_probabilities(logits: torch.Tensor, row: RowSampling, at: torch.Tensor) -> torch.Tensor:
    probabilities = torch.softmax(logits.float() / row.temperature[:, None], dim=-1)
    return draw_on(logits.device)(probabilities, row.top_k, row.top_p, row.min_p, at)
