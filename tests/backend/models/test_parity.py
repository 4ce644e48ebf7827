"""Greedy tokens equal those of ``transformers`` in float32, whatever the cache, the chunks, the pages and the order."""

import itertools
import random

import pytest

from backend import Engine
from tests.backend.tiny_models import MODELS, VOCAB, greedy, write_model

GREEDY = {"temperature": 0, "max_new_tokens": 24}


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    return write_model(request.param, tmp_path_factory.mktemp(request.param))


def prompts(seed=0):
    """Prompts of mixed lengths, some equal, some sharing a prefix."""
    r = random.Random(seed)
    heads = [[r.randrange(3, VOCAB) for _ in range(40)] for _ in range(2)]
    tails = [[r.randrange(3, VOCAB) for _ in range(length)] for length in (1, 2, 17, 33)]
    mixed = [head[:cut] + tail for head, cut, tail in itertools.product(heads, (0, 40), tails)]
    return [*mixed, mixed[5], mixed[5]]


def make_engine(model, **args):
    return Engine(
        model,
        dtype="float32",
        skip_tokenizer_init=True,
        cpu_threads=1,
        max_total_tokens=args.pop("max_total_tokens", 4096),
        check_invariants=True,
        **args,
    )


def answers(engine, batch, **sampling):
    results = engine.generate(input_ids=batch, sampling_params=GREEDY | sampling, progress=False)
    return [result["output_ids"] for result in results]


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"disable_radix_cache": True},
        {"page_size": 1, "chunked_prefill_size": 7},
        {"page_size": 4, "chunked_prefill_size": 1, "max_running_requests": 3},
        {"page_size": 16, "max_total_tokens": 192, "chunked_prefill_size": 32},
    ],
    ids=str,
)
def test_tokens_equal_the_reference(model, args):
    batch = prompts()
    expected = [greedy(model, prompt, GREEDY["max_new_tokens"]) for prompt in batch]
    with make_engine(model, **args) as engine:
        assert answers(engine, batch) == expected
        order = random.Random(1).sample(range(len(batch)), len(batch))
        assert answers(engine, [batch[i] for i in order]) == [expected[i] for i in order]


def test_one_by_one_equals_the_batch_and_hits_the_cache(model):
    batch = prompts(seed=2)
    with make_engine(model) as engine:
        together = answers(engine, batch)
        alone = [engine.generate(input_ids=prompt, sampling_params=GREEDY) for prompt in batch]
    assert [result["output_ids"] for result in alone] == together
    assert sum(result["meta_info"]["cached_tokens"] for result in alone) > 0


def test_long_context_with_scaled_positions(model):
    r = random.Random(3)
    prompt = [r.randrange(3, VOCAB) for _ in range(220)]
    with make_engine(model, chunked_prefill_size=64) as engine:
        assert answers(engine, [prompt]) == [greedy(model, prompt, 24)]
