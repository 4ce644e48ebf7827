"""A tiny real model among requests of every kind: free text, grammars (also after reasoning), and embeddings.

Answers equal those of ``transformers``, computed one token after the other from the grammar's masks.
"""

import functools
from typing import ClassVar

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from backend.cache.host_tree import WRITE_POLICIES
from backend.config import ServerArgs
from backend.core import build_core
from backend.prompt.byte_table import byte_table
from backend.prompt.source import resolve_model
from tests.backend.engine.test_lives import EPISODES
from tests.backend.prompt.tiny import write_json
from tests.backend.scheduler.test_guided import EOS, VOCABULARY
from tests.backend.scheduler.test_kinds_fuzz import CONTEXT, EVENT, KindsHarness, answer, live
from tests.backend.tiny_models import COMMON, load_reference, save_tiny

EVERYTHING = np.arange(VOCABULARY.size)


def byte_tokenizer():
    """Its ids are those of ``VOCABULARY``: each byte's own number, then control tokens, the last of which ends."""
    backend = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters())}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([f"<|{i}|>" for i in range(256, EOS + 1)])
    return backend


def letters():
    """GPT-2's letter for each byte, in the order of the bytes."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.decoder = decoders.ByteLevel()
    table = byte_table(backend, frozenset())
    return sorted(alphabet, key=lambda letter: table[backend.token_to_id(letter)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes")
    config = LlamaConfig(**{**COMMON, "vocab_size": VOCABULARY.size, "eos_token_id": EOS}, tie_word_embeddings=False)
    save_tiny("bytes", lambda: LlamaForCausalLM(config), path)
    byte_tokenizer().save(str(path / "tokenizer.json"))
    write_json(path / "tokenizer_config.json", {"eos_token": f"<|{EOS}|>"})
    return str(path)


@functools.cache
@torch.inference_mode()
def hidden_states(folder, tokens):
    return load_reference(folder).model(torch.tensor([tokens])).last_hidden_state[0]


class RealKinds(KindsHarness):
    """The fuzz's harness around a whole core, whose grammars are compiled when their thread comes to it."""

    tolerance: ClassVar = {"atol": 2e-4, "rtol": 1e-4}

    def __init__(self, folder, **settings):
        args = ServerArgs(
            model_path=folder, dtype="float32", cpu_threads=1, context_length=CONTEXT, check_invariants=True, **settings
        )
        self.folder = folder
        self.scheduler = build_core(args, resolve_model(folder)).scheduler
        self.limits = self.scheduler.limits
        self.outputs, self.finished, self.asked, self.cached, self.vectors = {}, {}, {}, {}, {}

    def compile(self):
        """Grammars compile by themselves."""

    def answer(self, prompt, spec, max_new, after):
        return answer(prompt, spec, max_new, after, pick=self.pick, everything=EVERYTHING)

    def vector(self, prompt, pooling):
        hidden = hidden_states(self.folder, tuple(prompt))
        return (hidden.mean(dim=0) if pooling == "mean" else hidden[-1]).numpy()

    @torch.inference_mode()
    def pick(self, tokens, allowed):
        """The likeliest of the ``allowed`` tokens."""
        logits = load_reference(self.folder).lm_head(hidden_states(self.folder, tuple(tokens))[-1])
        return int(allowed[logits[torch.from_numpy(allowed)].argmax()])


SETTINGS = st.fixed_dictionaries(
    {
        "page_size": st.sampled_from([1, 4, 16]),
        "chunked_prefill_size": st.sampled_from([1, 5, 16, -1]),
        "max_running_requests": st.integers(1, 5),
        "disable_overlap_schedule": st.booleans(),
        "schedule_conservativeness": st.sampled_from([0.01, 1.0]),
        "num_continuous_decode_steps": st.sampled_from([1, 3]),
        "enable_hierarchical_cache": st.booleans(),
        "hicache_write_policy": st.sampled_from(list(WRITE_POLICIES)),
        "enable_priority_scheduling": st.booleans(),
        "priority_scheduling_preemption_threshold": st.sampled_from([0, 1]),
    }
)


@settings(max_examples=EPISODES, deadline=None)
@given(SETTINGS, st.integers(CONTEXT, CONTEXT + 40), st.lists(EVENT, min_size=6, max_size=16))
def test_random_lives_of_every_kind_answer_as_a_sequential_reference(folder, settings, room, events):
    harness = RealKinds(folder, max_total_tokens=room, **settings)
    harness.check(live(harness, events))
