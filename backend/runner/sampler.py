"""From logits to tokens, for a whole batch at once.

Order of the steps, as in SGLang: penalties, logit bias, forbidden stop tokens, grammar, temperature, top-k, top-p,
min-p, draw. The draw inverts the cumulative distribution at one uniform number per row, which depends on the request's
seed and position only.
"""

from __future__ import annotations

import torch

from backend.runner.draw import draw_from_logits_on, draw_on
from backend.runner.penalties import apply_penalties
from backend.runner.sampling_plan import SamplingPlan


def sample(logits: torch.Tensor, plan: SamplingPlan, pool: torch.Tensor) -> torch.Tensor:
    """One token for each row of ``logits`` (floating, ``[R, vocab]``; float32 ones may be changed in place): int64[R].

    ``pool`` is the flat token pool, from which penalties read what the rows hold.
    """
    row = plan.row
    straight = draw_from_logits_on(logits.device) if row.unlimited else None
    if not plan.greedy and (plan.touches or straight is None):
        logits = logits.float()
    if plan.penalties is not None:
        apply_penalties(logits, plan.penalties, pool)
    if row.bias is not None:
        logits.index_put_((row.bias.rows, row.bias.tokens), row.bias.values, accumulate=True)
    if plan.forbidden is not None:
        logits.index_put_(plan.forbidden, logits.new_full((), float("-inf")))
    if plan.mask is not None:
        plan.mask.apply(logits)
    if row.hot is None or plan.uniform is None:
        return logits.argmax(dim=-1)
    if straight is not None:
        return straight(logits, row.temperature, row.hot, plan.uniform)
    probabilities = torch.softmax(logits / row.temperature[:, None], dim=-1)
    drawn = draw_on(logits.device)(probabilities, row.top_k, row.top_p, row.min_p, plan.uniform)
    return torch.where(row.hot, drawn, logits.argmax(dim=-1))
