"""Draws without sorting are those of the definition with sorting, in float64."""

import random

import numpy as np
import pytest
import torch

from backend.runner.draw import draw as draw_by_sorting
from backend.runner.kernels.draw import draw
from backend.runner.kernels.draw_logits import draw_from_logits
from backend.runner.kernels.likeliest import keep_and_find
from backend.runner.sampler import sample
from backend.runner.sampling_plan import SamplingPlanner
from backend.sampling_params import SamplingParams
from tests.backend.runner.test_sampler import make_slots

LARGE = torch.cuda.is_available()
VOCABS = (32000, 151936) if LARGE else (7, 90)


def interval(row, k, p, floor_share, token):
    """Where between 0 and 1 the definition gives ``token``."""
    row = row.double()
    if k >= len(row) and p >= 1:
        order = torch.arange(len(row))
    else:
        order = row.argsort(descending=True, stable=True)
    kept = row[order].clone()
    kept[k:] = 0
    if p < 1:
        before = kept.cumsum(0) - kept
        kept[1:][before[1:] >= p * kept.sum()] = 0
    kept[kept < row.max() * floor_share] = 0
    ends = kept.cumsum(0) / kept.sum()
    place = int((order == token).nonzero())
    return float(ends[place] - kept[place] / kept.sum()), float(ends[place])


def rows_of(kind, vocab, count, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, vocab, generator=generator) * {"sharp": 4, "flat": 0.3, "ties": 2, "gaps": 2}[kind]
    if kind == "ties":
        logits = logits.round()
    if kind == "gaps":
        logits[torch.rand(count, vocab, generator=generator) < 0.5] = float("-inf")
    return logits.softmax(-1)


@pytest.mark.parametrize("implementation", [draw, draw_by_sorting], ids=["triton", "torch"])
@pytest.mark.parametrize("limits", ["", "k", "p", "m", "kp", "pm", "kpm"])
@pytest.mark.parametrize("kind", ["sharp", "flat", "ties", "gaps"])
def test_draws_are_those_of_the_definition(kind, limits, implementation, device):
    r = random.Random(f"{kind}{limits}")
    for vocab in VOCABS:
        rows = rows_of(kind, vocab, 12 if LARGE else 3, seed=vocab)
        k = torch.tensor([r.choice([1, 3, 50, vocab - 1, vocab]) for _ in rows]).clamp(max=vocab)
        p = torch.tensor([r.choice([0.05, 0.5, 0.9, 0.99, 1.0]) for _ in rows])
        m = torch.tensor([r.choice([0.0, 0.02, 0.3]) for _ in rows])
        at = torch.tensor([r.random() for _ in rows])
        given = [x.to(device) if name in limits else None for name, x in zip("kpm", (k, p, m), strict=True)]
        tokens = implementation(rows.to(device), *given, at.to(device)).tolist()
        for i, token in enumerate(tokens):
            low, high = interval(
                rows[i],
                int(k[i]) if "k" in limits else vocab,
                float(p[i]) if "p" in limits else 1.0,
                float(m[i]) if "m" in limits else 0.0,
                token,
            )
            assert low < high
            assert low - 1e-4 <= float(at[i]) <= high + 1e-4


@pytest.mark.parametrize("kind", ["sharp", "flat", "ties", "gaps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_draws_from_logits_are_those_of_the_definition(kind, dtype, device):
    for vocab in (*VOCABS, 9000):
        count = 12 if LARGE else 4
        logits = rows_of(kind, vocab, count, vocab).log().to(dtype)
        temperature = torch.tensor([0.05, 0.7, 1.0, 3.0] * (count // 4))
        hot = torch.tensor([True, True, False, True] * (count // 4))
        at = torch.rand(count, generator=torch.Generator().manual_seed(vocab))
        at[1] = 1 - 2**-24  # the largest below one
        tokens = draw_from_logits(*(x.to(device) for x in (logits, temperature, hot, at))).tolist()
        for i, token in enumerate(tokens):
            if not hot[i]:
                assert token == int((logits[i] == logits[i].max()).nonzero()[0, 0])
                continue
            low, high = interval((logits[i].double() / temperature[i]).softmax(-1), vocab, 1.0, 0.0, token)
            assert low < high
            assert low - 1e-4 <= float(at[i]) <= high + 1e-4


def test_a_row_draws_the_same_whatever_limits_its_neighbours_have(device, monkeypatch):
    monkeypatch.setattr("backend.runner.sampler.draw_from_logits_on", lambda _: draw_from_logits)
    params = [{}, {"top_p": 0.8}, {"temperature": 0.0}, {"top_k": 3}, {"min_p": 0.1}]
    slots = make_slots([SamplingParams(sampling_seed=i, **each) for i, each in enumerate(params)])
    logits = rows_of("flat", 9000, len(params), 3).log().bfloat16().to(device)
    pool = torch.from_numpy(slots.tokens).flatten().to(device)

    def tokens(*rows):
        rows = np.array(rows)
        plan = SamplingPlanner(9000, device).plan(slots, rows, slots.known[rows])
        return sample(logits[torch.from_numpy(rows).to(device)], plan, pool).tolist()

    assert tokens(0, 1, 2, 3, 4) == [token for row in range(5) for token in tokens(row)]
    assert tokens(2) == [int((logits[2] == logits[2].max()).nonzero()[0, 0])]


def test_draws_skip_blocks_without_an_allowed_token(device):
    logits = torch.full((3, 20_000), float("-inf"))
    logits[0, 19_999] = logits[1, 4096] = 1.0
    logits[2, [5, 8192]] = 0.0
    ones, at = torch.ones(3), torch.tensor([0.0, 0.999, 0.5])
    tokens = draw_from_logits(*(x.to(device) for x in (logits, ones, ones.bool(), at)))
    assert tokens.tolist() == [19_999, 4096, 8192]
    nobody = torch.full((2, 9000), float("nan"))
    tokens = draw_from_logits(*(x.to(device) for x in (nobody, ones[:2], at[:2] < 0.5, at[:2])))
    assert ((tokens >= 0) & (tokens < 9000)).all()


@pytest.mark.parametrize("kind", ["sharp", "ties", "gaps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_likeliest_tokens_are_the_first_of_the_largest(kind, dtype):
    device = "cuda" if LARGE else "cpu"
    for vocab in (*VOCABS, 20000):
        logits = rows_of(kind, vocab, 3, vocab).log().to(device, dtype)
        kept = torch.full((5, vocab + 3), float("nan"), dtype=dtype, device=device)[:3, :vocab]
        tokens = torch.full((3,), -1, dtype=torch.int64, device=device)
        keep_and_find(logits, kept, tokens)
        assert torch.equal(kept, logits)
        first = [int((row == row.max()).nonzero()[0, 0]) for row in kept]
        assert tokens.tolist() == first


def test_of_numbers_that_are_none_some_token_is_found():
    device = "cuda" if LARGE else "cpu"
    logits = torch.full((2, 9000), float("nan"), device=device)
    tokens = torch.full((2,), -1, dtype=torch.int64, device=device)
    keep_and_find(logits, torch.empty_like(logits), tokens)
    assert ((tokens >= 0) & (tokens < 9000)).all()
