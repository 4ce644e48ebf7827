"""Log probabilities of prompts are computed a part of the places at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.messages import LogprobSpec
from backend.runner import logprobs
from backend.runner.logprobs import LogprobPlan, row_logprobs

VOCAB = 11


def plan(counts: list[int], sampled: list[int]) -> LogprobPlan:
    total = sum(counts)
    rng = np.random.default_rng(total)
    return LogprobPlan(
        specs=tuple(LogprobSpec(0, top, [3]) for top in range(len(counts))),
        hidden=torch.from_numpy(rng.permutation(total + 5)[:total]),
        targets=torch.from_numpy(rng.integers(0, VOCAB, total)),
        counts=tuple(counts),
        sampled=tuple(sampled),
    )


@pytest.mark.parametrize("counts", [[0], [7], [3, 0, 4], [20, 1, 9], [1] * 9])
def test_no_more_logits_than_agreed_are_there_at_once(counts, monkeypatch):
    torch.manual_seed(0)
    every = torch.randn(sum(counts) + 5, VOCAB)
    asked: list[int] = []

    def logits_at(hidden):
        asked.append(len(hidden))
        return every[hidden]

    wanted = plan(counts, [-1, *range(len(counts) - 1)])
    ends, sampled = torch.randn(len(counts), VOCAB), torch.arange(len(counts))
    whole = [row.logprobs() for row in row_logprobs(wanted, logits_at, ends, sampled)]
    assert asked == [sum(counts)] * (sum(counts) > 0)
    asked.clear()
    monkeypatch.setattr(logprobs, "PLACES_AT_ONCE", 4)
    assert [row.logprobs() for row in row_logprobs(wanted, logits_at, ends, sampled)] == whole
    assert max(asked, default=0) <= 4
    assert sum(asked) == sum(counts)
    assert [len(row.prompt) for row in whole] == counts
    assert [len(row.output) for row in whole] == [0] + [1] * (len(counts) - 1)
