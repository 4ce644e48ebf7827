"""The sampler against the definition of each parameter, on frequencies of many seeded draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.runner.mask import Mask
from backend.runner.sampler import sample
from backend.runner.sampling_plan import SamplingPlanner
from backend.sampling_params import SamplingParams
from backend.scheduler.seeds import hash_seed, uniform
from backend.scheduler.slots import Slots

CPU = torch.device("cpu")
LOGITS = [2.0, 1.5, 1.0, 0.0, -1.0, -3.0]


def make_slots(params, tokens=(0,), prompt_len=None, stop_ids=(), seed=1):
    """One slot per entry of ``params``, all with the known ``tokens``."""
    slots = Slots(len(params), 64, 4)
    for uid, each in enumerate(params):
        known = np.array(tokens, np.int32)
        slot = slots.occupy(uid, known, prompt_len or len(tokens), 60)
        slots.set_sampling(slot, each, each.sampling_seed if each.sampling_seed is not None else seed, list(stop_ids))
    return slots


def draw(logits, slots, lengths=None):
    rows = np.arange(slots.num_slots)
    lengths = slots.known[rows] if lengths is None else lengths
    table = torch.tensor(logits, dtype=torch.float32).expand(len(rows), -1).clone()
    pool = torch.from_numpy(slots.tokens).flatten()
    return sample(table, SamplingPlanner(table.shape[1], CPU).plan(slots, rows, lengths), pool).tolist()


def frequencies(count=4000, **params):
    slots = make_slots([SamplingParams(sampling_seed=seed, **params) for seed in range(count)])
    return np.bincount(draw(LOGITS, slots), minlength=len(LOGITS)) / count


def softmax(values):
    exponents = np.exp(np.array(values) - max(values))
    return exponents / exponents.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_softmax(temperature):
    expected = softmax(np.array(LOGITS) / temperature)
    assert np.abs(frequencies(temperature=temperature) - expected).max() < 0.03


def test_temperature_zero_and_top_k_one_are_greedy():
    assert frequencies(count=50, temperature=0.0)[0] == 1
    assert frequencies(count=50, temperature=5.0, top_k=1)[0] == 1


def test_top_k_keeps_the_k_likeliest():
    expected = softmax(LOGITS[:2])
    found = frequencies(temperature=1.0, top_k=2)
    assert found[2:].sum() == 0
    assert np.abs(found[:2] - expected).max() < 0.03


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    probabilities = softmax(LOGITS)
    p = probabilities[:2].sum() + 0.01  # the third token is needed to reach it
    found = frequencies(temperature=1.0, top_p=float(p))
    assert (found[:3] > 0).all()
    assert found[3:].sum() == 0


def test_top_p_always_keeps_the_first():
    assert frequencies(count=50, temperature=1.0, top_p=0.01)[0] == 1


def test_min_p_drops_what_is_unlikely_beside_the_best():
    found = frequencies(temperature=1.0, min_p=0.5)
    kept = softmax(LOGITS) >= 0.5 * softmax(LOGITS).max()
    assert (found[~kept] == 0).all()
    assert (found[kept] > 0).all()


def test_a_mixed_batch_serves_each_row_by_its_own_parameters():
    params = [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.0, sampling_seed=5),
        SamplingParams(temperature=9.0, top_k=2, sampling_seed=6),
        SamplingParams(temperature=1.0, min_p=1.0, sampling_seed=7),
    ]
    together = draw(LOGITS, make_slots(params))
    alone = [draw(LOGITS, make_slots([each]))[0] for each in params]
    assert together == alone
    assert together[0] == together[3] == 0
    assert together[2] < 2


def test_a_seed_gives_the_same_tokens_at_the_same_positions_only():
    slots = make_slots([SamplingParams(temperature=3.0, sampling_seed=11)] * 64)
    positions = np.arange(1, 65, dtype=np.int32)
    first, second = draw(LOGITS, slots, positions), draw(LOGITS, slots, positions)
    assert first == second
    assert len(set(first)) > 1


def test_frequency_and_presence_penalties_count_output_tokens_only():
    tokens = [0, 3, 1, 1]  # prompt 0 3, output 1 1
    logits = [1.0, 1.4, 0.9, 0.2]
    assert draw(logits, make_slots([SamplingParams(temperature=0)], tokens, 2)) == [1]
    penalised = make_slots([SamplingParams(temperature=0, frequency_penalty=0.3)], tokens, 2)
    assert draw(logits, penalised) == [0]  # 1.4 - 2 * 0.3 = 0.8
    assert draw(logits, make_slots([SamplingParams(temperature=0, frequency_penalty=0.15)], tokens, 2)) == [1]
    assert draw(logits, make_slots([SamplingParams(temperature=0, presence_penalty=0.45)], tokens, 2)) == [0]
    assert draw(logits, make_slots([SamplingParams(temperature=0, presence_penalty=0.35)], tokens, 2)) == [1]


def test_repetition_penalty_counts_the_prompt_and_divides_or_multiplies():
    logits = [2.0, 1.5, 1.2, -0.1]
    assert draw(logits, make_slots([SamplingParams(temperature=0, repetition_penalty=2.0)], [0, 1], 1)) == [2]
    assert draw([-1.0, -1.5, -1.6], make_slots([SamplingParams(temperature=0, repetition_penalty=2.0)], [0], 1)) == [1]


def test_logit_bias_is_added_to_its_row_only():
    params = [SamplingParams(temperature=0, logit_bias={4: 9.0, 10**6: 5.0}), SamplingParams(temperature=0)]
    assert draw(LOGITS, make_slots(params)) == [4, 0]
    assert draw(LOGITS, make_slots([SamplingParams(temperature=0, logit_bias={0: -100.0})])) == [1]


@pytest.mark.parametrize("more", [(), range(5, 60)])
def test_stop_tokens_are_forbidden_before_min_new_tokens(more):
    slots = make_slots([SamplingParams(temperature=0, min_new_tokens=2)], [5], stop_ids=[0, 1, *more])
    assert draw(LOGITS, slots, np.array([1], np.int32)) == [2]
    assert draw(LOGITS, slots, np.array([2], np.int32)) == [2]
    assert draw(LOGITS, slots, np.array([3], np.int32)) == [0]


def test_a_row_with_a_grammar_samples_what_it_allows():
    params = [
        SamplingParams(temperature=0),
        SamplingParams(temperature=1.0, sampling_seed=3),
        SamplingParams(temperature=0),
    ]
    planner = SamplingPlanner(5, torch.device("cpu"))
    slots = make_slots(params)
    mask = Mask(torch.tensor([0, 1]), lambda: torch.tensor([[0b01100], [0b10000]], dtype=torch.int32))
    plan = planner.plan(slots, np.arange(3), np.array([1, 1, 1], np.int32), mask)
    logits = torch.tensor([[5.0, 4.0, 1.0, 2.0, 3.0]] * 3)
    assert sample(logits, plan, torch.from_numpy(slots.tokens).flatten()).tolist() == [3, 4, 0]


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12),
    temperature=st.floats(0.01, 10),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(1, 12),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**63),
)
def test_a_drawn_token_is_always_allowed(logits, temperature, top_p, top_k, min_p, seed):
    params = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, sampling_seed=seed)
    (token,) = draw(logits, make_slots([params]))
    likelier = torch.softmax(torch.tensor(logits) / temperature, dim=-1)
    assert int((likelier > likelier[token]).sum()) < top_k
    probabilities = softmax(np.array(logits, np.float64) / temperature)
    assert probabilities[token] >= probabilities.max() * min_p * (1 - 1e-3)


def test_uniform_numbers_are_uniform_in_seeds_and_in_positions():
    hashed = np.array([hash_seed(seed) for seed in range(20_000)], np.uint64)
    positions = np.arange(20_000)
    for numbers in (uniform(hashed, np.full(len(hashed), 3)), uniform(np.full(len(hashed), hashed[9]), positions)):
        assert (numbers >= 0).all()
        assert (numbers < 1).all()
        counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
        assert np.abs(counts - 1000).max() < 150


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_that_demands_a_stop_token_comes_before_min_new_tokens(temperature):
    params = SamplingParams(temperature=temperature, min_new_tokens=5)
    slots = make_slots([params], stop_ids=(3,))
    mask = Mask(torch.tensor([0]), lambda: torch.tensor([[0b01000]], dtype=torch.int32))
    planner = SamplingPlanner(5, torch.device("cpu"))
    plan = planner.plan(slots, np.arange(1), np.array([1], np.int32), mask)
    assert sample(torch.zeros(1, 5), plan, torch.zeros(8, dtype=torch.int32)).tolist() == [3]
