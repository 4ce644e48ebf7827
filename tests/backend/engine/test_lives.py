"""A tiny real model in float32: tokens equal those of ``transformers``, whatever happened around a request."""

import functools
import itertools
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.config import ServerArgs
from backend.core import build_core
from backend.prompt.source import resolve_model
from tests.backend.scheduler.harness import Harness
from tests.backend.scheduler.test_fuzz import EVENT, live
from tests.backend.tiny_models import load_reference, write_model

EPISODES = max(12, int(os.environ.get("WARMLANE_FUZZ_EPISODES", "0")) // 50)
CONTEXT = 48
CHUNKS = [1, 5, 16, -1]
PAGES = [1, 4, 16]


@functools.cache
@torch.inference_mode()
def sequential(folder, prompt, count):
    """The greedy tokens after ``prompt`` by transformers, none of which ends the answer."""
    model, ids, past = load_reference(folder), torch.tensor([prompt]), None
    answer = []
    for _ in range(count):
        out = model(ids, past_key_values=past, use_cache=True)
        past = out.past_key_values
        answer.append(int(out.logits[0, -1].argmax()))
        ids = torch.tensor([answer[-1:]])
    return answer


class RealHarness(Harness):
    """The fuzz's harness around a whole core."""

    def __init__(self, folder, **settings):
        self.folder = folder
        args = ServerArgs(
            model_path=folder, dtype="float32", cpu_threads=1, context_length=CONTEXT, check_invariants=True, **settings
        )
        self.scheduler = build_core(args, resolve_model(folder)).scheduler
        self.limits = self.scheduler.limits
        self.begin()

    def expected(self, prompt, max_new, stop_ids):
        answer = sequential(self.folder, tuple(prompt), max_new)
        ends = [place for place, token in enumerate(answer) if token in stop_ids]
        return answer[: ends[0] + 1] if ends else answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model("llama", tmp_path_factory.mktemp("tiny"))


SETTINGS = st.fixed_dictionaries(
    {
        "page_size": st.sampled_from(PAGES),
        "chunked_prefill_size": st.sampled_from(CHUNKS),
        "max_running_requests": st.integers(1, 5),
        "disable_overlap_schedule": st.booleans(),
        "disable_radix_cache": st.sampled_from([False, False, True]),
        "schedule_conservativeness": st.sampled_from([0.01, 1.0]),
        "schedule_policy": st.sampled_from(["fcfs", "lpm", "lof"]),
    }
)


@settings(max_examples=EPISODES, deadline=None)
@given(SETTINGS, st.integers(48, 80), st.lists(EVENT, min_size=6, max_size=16))
def test_random_lives_answer_as_a_sequential_reference(folder, settings, room, events):
    harness = RealHarness(folder, max_total_tokens=room, **settings)
    live(harness, events)
    harness.check_answers()


PROMPTS = [[5, 6, 7] * 6 + [tail] for tail in (1, 3, 9)] + [[5, 6, 7] * 3, [11] * 17]
PRODUCT = list(itertools.product(PAGES, CHUNKS, (False, True), (False, True)))


@pytest.mark.parametrize("host", [False, True], ids=["device", "host tier"])
@pytest.mark.parametrize(("page", "chunk", "no_cache", "no_overlap"), PRODUCT)
def test_parity_over_cache_chunk_page_overlap_and_host_tier(folder, page, chunk, no_cache, no_overlap, host):
    if host and no_cache:
        pytest.skip("there is no host tier without a prefix cache")
    harness = RealHarness(
        folder,
        page_size=page,
        chunked_prefill_size=chunk,
        disable_radix_cache=no_cache,
        disable_overlap_schedule=no_overlap,
        enable_hierarchical_cache=host,
        hicache_ratio=2.0,
        max_total_tokens=64,
    )
    for _ in range(2):  # the second time from the cache, or from the host
        uids = harness.add(*PROMPTS, max_new=10, stop_ids=())
        harness.run()
        assert [harness.outputs[uid] for uid in uids] == [sequential(folder, tuple(prompt), 10) for prompt in PROMPTS]
    assert no_cache or any(harness.cached.values())
