"""From logits to tokens, for a whole batch at once.

Order of the steps, as in SGLang: penalties, logit bias, forbidden stop tokens, grammar, temperature, top-k, top-p,
min-p, draw. The draw inverts the cumulative distribution at one uniform number per row, which depends on the request's
seed and position only.
"""

from __future__ import annotations

import torch

from backend.runner.draw import draw_on
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
    drawn = draw_on(logits.device)(probabilities, plan.row.top_k, plan.row.top_p, plan.row.min_p, plan.uniform)
    return torch.where(plan.row.hot, drawn, greedy)
