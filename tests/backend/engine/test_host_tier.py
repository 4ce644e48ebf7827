"""The host tier with a real tiny model: tokens equal ``transformers`` while prefixes go to the host and come back."""

import itertools
import random

import numpy as np
import pytest

from backend import Engine
from backend.config import ServerArgs
from backend.core import build_core
from backend.messages import NewRequest, ToScheduler
from backend.prompt import resolve_model
from backend.sampling_params import SamplingParams
from tests.backend.models.families import VARIANTS
from tests.backend.tiny_models import greedy, save_tiny, write_model

NEW_TOKENS = 4
EOS = 2
DEVICE_TOKENS = 128
TEXTS = [[random.Random(seed).randrange(3, 90) for _ in range(70)] for seed in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def latent_folder(tmp_path_factory):
    return save_tiny("deepseek-v2", VARIANTS["deepseek-v2"].make, tmp_path_factory.mktemp("deepseek"))


class Served:
    """A scheduler with a KV room of little more than one prompt; answers by uid."""

    def __init__(self, folder, **settings):
        settings = {
            "max_total_tokens": DEVICE_TOKENS,
            "enable_hierarchical_cache": True,
            "hicache_ratio": 4.0,
            "chunked_prefill_size": 32,
            **settings,
        }
        args = ServerArgs(model_path=folder, dtype="float32", cpu_threads=1, check_invariants=True, **settings)
        self.core = build_core(args, resolve_model(folder))
        self.scheduler = self.core.scheduler
        self.cached, self.fetched, self.tokens = {}, {}, {}
        self._uids = itertools.count(1)

    def ask(self, *prompts):
        """The answers, all prompts at once."""
        greedily = SamplingParams(temperature=0, max_new_tokens=NEW_TOKENS)
        uids = [next(self._uids) for _ in prompts]
        for uid, prompt in zip(uids, prompts, strict=True):
            ids = np.array(prompt, np.int32).tobytes()
            self.scheduler.receive(ToScheduler(new=[NewRequest(uid, ids, greedily, [EOS])]))
        while self.scheduler.has_work:
            out = self.scheduler.step()
            self.cached |= dict(out.started)
            self.fetched |= dict(out.fetched)
            for uid, token in zip(out.uids, out.tokens, strict=True):
                self.tokens.setdefault(uid, []).append(token)
        return [self.tokens[uid] for uid in uids]


def visits(rounds):
    """Each text again and again, further each time, with something of its own at the end; two at a time."""
    prompts = [text[: 40 + 10 * turn] + [turn + 3] for turn in range(rounds) for text in TEXTS]
    return [prompts[i : i + 2] for i in range(0, len(prompts), 2)]


@pytest.mark.parametrize("policy", ["write_through", "write_through_selective", "write_back"])
@pytest.mark.parametrize(("page_size", "overlap"), [(1, True), (4, True), (4, False), (16, True)])
def test_tokens_equal_the_reference(folder, policy, page_size, overlap):
    served = Served(folder, page_size=page_size, disable_overlap_schedule=not overlap, hicache_write_policy=policy)
    for prompts in visits(3):
        assert served.ask(*prompts) == [greedy(folder, prompt, NEW_TOKENS) for prompt in prompts]
    assert sum(served.fetched.values()) > 0
    assert all(served.fetched[uid] <= served.cached[uid] for uid in served.fetched)


@pytest.mark.parametrize("policy", ["write_through", "write_back"])
def test_large_pages_come_back_too(folder, policy):
    served = Served(folder, page_size=64, max_total_tokens=256, hicache_write_policy=policy)
    for turn in range(2):
        for first, second in itertools.pairwise(TEXTS):
            prompt = (first + second)[: 131 + 5 * turn]
            assert served.ask(prompt) == [greedy(folder, prompt, NEW_TOKENS)]
    assert set(served.cached.values()) == {0, 128}
    assert sum(served.fetched.values()) > 0


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_latent_pages_come_back_too(latent_folder, page_size):
    served = Served(latent_folder, page_size=page_size)
    for prompts in visits(2):
        assert served.ask(*prompts) == [greedy(latent_folder, prompt, NEW_TOKENS) for prompt in prompts]
    assert sum(served.fetched.values()) > 0


def test_a_tier_that_holds_almost_nothing_changes_no_answer(folder):
    served = Served(folder, page_size=4, hicache_ratio=0.3)
    for prompts in visits(3):
        assert served.ask(*prompts) == [greedy(folder, prompt, NEW_TOKENS) for prompt in prompts]


def test_a_prefix_comes_back_whole_and_a_flush_forgets_it(folder):
    served = Served(folder, page_size=4, hicache_write_policy="write_back")
    [first] = served.ask(TEXTS[0])
    for text in TEXTS[1:]:
        served.ask(text)
    stats = served.scheduler.stats
    assert stats.host_used_tokens > 0
    assert served.ask(TEXTS[0]) == [first]
    assert served.fetched == {6: 68}
    assert served.cached[6] == 68
    assert stats.loaded_tokens_total == 68
    served.scheduler.receive(ToScheduler(flush_cache=1))
    assert served.scheduler.step().flushed == (1, True)
    assert stats.host_used_tokens == 0
    assert served.ask(TEXTS[0]) == [first]
    assert served.cached[7] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hicache_ratio": 0.001}, "--hicache-ratio 0.001 is less than one page of .*; raise it"),
        ({"hicache_size": 10**6}, "--hicache-size 1000000 takes .* of the host's memory, .* are free; lower it"),
        ({"disable_radix_cache": True}, "drop --disable-radix-cache"),
    ],
)
def test_a_tier_that_cannot_be_says_why(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        Served(folder, **settings)


def test_the_engine_tells_what_came_from_the_host(folder):
    ids = {"sampling_params": {"temperature": 0, "max_new_tokens": 2, "ignore_eos": True}}
    settings = {"enable_hierarchical_cache": True, "page_size": 4, "max_total_tokens": DEVICE_TOKENS, "cpu_threads": 1}
    with Engine(folder, dtype="float32", skip_tokenizer_init=True, **settings) as engine:
        first = engine.generate(input_ids=TEXTS[0], **ids)
        for text in TEXTS[1:3]:
            engine.generate(input_ids=text, **ids)
        again = engine.generate(input_ids=TEXTS[0], **ids)
        info = engine.get_server_info()
    assert again["output_ids"] == first["output_ids"]
    assert "cached_tokens_details" not in first["meta_info"]
    assert again["meta_info"]["cached_tokens"] == 68
    assert again["meta_info"]["cached_tokens_details"] == {"device": 0, "host": 68}
    assert (info["host_total_tokens"], info["loaded_tokens_total"]) == (2 * DEVICE_TOKENS, 68)
    assert 0 < info["host_used_tokens"] <= 2 * DEVICE_TOKENS
