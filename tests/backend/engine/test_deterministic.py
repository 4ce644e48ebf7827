"""Deterministic mode: log probabilities of a request are equal bit by bit whatever runs beside it."""

import random

import numpy as np
import pytest

from backend.config import ServerArgs
from backend.core import build_core
from backend.messages import LogprobSpec, NewRequest, ToScheduler
from backend.prompt import resolve_model
from backend.sampling_params import SamplingParams
from tests.backend.models.families import VARIANTS
from tests.backend.tiny_models import greedy, save_tiny, write_model

BLOCK = 8
PROMPT = [random.Random(1).randrange(3, 90) for _ in range(37)]
OTHERS = [[random.Random(seed).randrange(3, 90) for _ in range(5 + 9 * seed)] for seed in range(7)]
OTHERS[3] = [*PROMPT[:21], 4, 5]  # shares a part of the prompt
SAMPLINGS = [
    {"temperature": 0},
    {"temperature": 0.9, "sampling_seed": 3},
    {"temperature": 0.8, "top_p": 0.7, "top_k": 12, "sampling_seed": 5},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: write_model(name, tmp_path_factory.mktemp(name)) for name in ("llama", "qwen3")}
    for name in ("deepseek-v2", "mixtral"):
        made[name] = save_tiny(name, VARIANTS[name].make, tmp_path_factory.mktemp(name))
    return made


def make(folder, dtype="float32", **settings):
    settings = {
        "page_size": BLOCK,
        "max_total_tokens": 1024,
        "max_running_requests": 8,
        "chunked_prefill_size": 24,
        **settings,
    }
    args = ServerArgs(
        model_path=folder, dtype=dtype, cpu_threads=1, check_invariants=True, enable_deterministic_inference=True,
        random_seed=0, **settings,
    )  # fmt: skip
    return build_core(args, resolve_model(folder)).scheduler


def request(uid, prompt, sampling, max_new=12, start=0):
    ids = np.array(prompt, np.int32).tobytes()
    params = SamplingParams(max_new_tokens=max_new, **sampling)
    return NewRequest(uid, ids, params, [], logprobs=LogprobSpec(start, 2, [7]))


def run(scheduler, news, wanted, arrivals=()):
    """Everything that is said of request ``wanted``; ``arrivals`` come one a step."""
    scheduler.receive(ToScheduler(new=list(news)))
    arrivals, said = list(arrivals), []
    while scheduler.has_work:
        out = scheduler.step()
        said += [token for uid, token in zip(out.uids, out.tokens, strict=True) if uid == wanted]
        said += [place for place in [*out.prompt_logprobs, *out.logprobs] if place.uid == wanted]
        if arrivals:
            scheduler.receive(ToScheduler(new=[arrivals.pop(0)]))
    return sorted(map(repr, said))


def neighbours(first, sampling=SAMPLINGS):
    return [request(first + i, other, sampling[i % len(sampling)], 3 + 2 * i, -1) for i, other in enumerate(OTHERS)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "drawn", "top"])
def test_a_batch_changes_no_bit(folders, dtype, sampling):
    alone = run(make(folders["llama"], dtype), [request(1, PROMPT, sampling)], 1)
    assert len(alone) == 12 + 12 + len(PROMPT) - 1
    before = run(make(folders["llama"], dtype), [*neighbours(2), request(1, PROMPT, sampling)], 1)
    during = run(make(folders["llama"], dtype), [request(1, PROMPT, sampling)], 1, neighbours(2))
    assert before == alone
    assert during == alone


@pytest.mark.parametrize("model", ["qwen3", "deepseek-v2", "mixtral"])
def test_other_models(folders, model):
    alone = run(make(folders[model]), [request(1, PROMPT, SAMPLINGS[0])], 1)
    assert run(make(folders[model]), [*neighbours(2), request(1, PROMPT, SAMPLINGS[0])], 1) == alone


@pytest.mark.parametrize("overlap", [True, False])
def test_the_cache_changes_no_bit(folders, overlap):
    scheduler = make(folders["llama"], disable_overlap_schedule=not overlap)
    cold = run(scheduler, [request(1, PROMPT, SAMPLINGS[0], start=36)], 1)
    scheduler.receive(ToScheduler(new=neighbours(3)))
    warm = run(scheduler, [request(1, PROMPT, SAMPLINGS[0], start=36)], 1)
    assert scheduler.stats.cached_prompt_tokens_total >= 2 * 16
    assert warm == cold


def test_what_was_output_before_is_computed_anew_as_a_prompt(folders):
    """The same conversation, its first answer once a cached output and once nothing that anybody knows."""
    scheduler = make(folders["llama"])
    answer = greedy(folders["llama"], PROMPT, 20)
    run(scheduler, [request(1, PROMPT, SAMPLINGS[0], 20)], 1)
    known = run(scheduler, [request(2, PROMPT + answer, SAMPLINGS[0], start=-1)], 2)
    fresh = run(make(folders["llama"]), [request(2, PROMPT + answer, SAMPLINGS[0], start=-1)], 2)
    assert known == fresh


def test_retraction_changes_no_bit(folders):
    alone = run(make(folders["llama"]), [request(1, PROMPT, SAMPLINGS[1], 40, -1)], 1)
    tight = make(folders["llama"], max_total_tokens=128, schedule_conservativeness=0.01)
    rivals = [request(2 + i, OTHERS[2 + i], SAMPLINGS[0], 60, -1) for i in range(3)]
    assert run(tight, [*rivals, request(1, PROMPT, SAMPLINGS[1], 40, -1)], 1) == alone
    assert tight.stats.retracted_total > 0


@pytest.mark.parametrize("chunk", [8, 30, 200])
def test_tokens_equal_the_reference_whatever_the_chunk(folders, chunk):
    scheduler = make(folders["llama"], chunked_prefill_size=chunk)
    scheduler.receive(ToScheduler(new=[request(i, other, {"temperature": 0}, 6) for i, other in enumerate(OTHERS, 1)]))
    tokens = {}
    while scheduler.has_work:
        out = scheduler.step()
        for uid, token in zip(out.uids, out.tokens, strict=True):
            tokens.setdefault(uid, []).append(token)
    for i, other in enumerate(OTHERS, 1):
        expected = greedy(folders["llama"], other, 6)
        assert tokens[i][: len(expected)] == expected


def test_an_attention_backend_of_ones_own_is_refused(folders):
    with pytest.raises(ValueError, match="attention of its own: drop --attention-backend triton"):
        make(folders["llama"], attention_backend="triton")


def test_the_host_tier_changes_no_bit(folders):
    scheduler = make(folders["llama"], max_total_tokens=96, enable_hierarchical_cache=True, hicache_ratio=8.0)
    cold = run(scheduler, [request(1, PROMPT, SAMPLINGS[0], start=36)], 1)
    for uid, other in enumerate(OTHERS, 2):
        run(scheduler, [request(uid, other, SAMPLINGS[0], 3, -1)], uid)
    assert run(scheduler, [request(1, PROMPT, SAMPLINGS[0], start=36)], 1) == cold
    assert scheduler.stats.loaded_tokens_total >= 16
