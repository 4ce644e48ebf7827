"""Answers of models that may think first: a grammar holds for what is no reasoning, whether there is one or not."""

from __future__ import annotations

import numpy as np
import pytest

from backend.grammar import GrammarSpec
from backend.messages import NewRequest, ToScheduler
from backend.sampling_params import SamplingParams
from tests.backend.scheduler.test_guided import EOS, GuidedHarness

START, END = 180, 181  # of a reasoning
SPEC = GrammarSpec("regex", "the answer is [ab]")
ANSWERS = {b"the answer is a", b"the answer is b"}


class Script(GuidedHarness):
    """The model says what ``wants`` lists where it may, and else the first token that it may say."""

    def __init__(self, wants, **limits):
        super().__init__(**limits)
        self.wants = list(wants)
        self.masks = []
        self.runner.chooser = self.choose

    def choose(self, batch):
        allowed = np.unpackbits(batch.allowed.bits.view(np.uint8), axis=1, bitorder="little")
        (options,) = [np.flatnonzero(row) for row in allowed]
        self.masks.append(set(options.tolist()))
        wanted = self.wants.pop(0) if self.wants else -1
        token = wanted if wanted in options else int(options[0])
        return lambda i, tokens: token

    def ask(self, after=END, unless=START):
        ids = np.array([5, 6], np.int32).tobytes()
        params = SamplingParams(max_new_tokens=60, temperature=0)
        new = NewRequest(1, ids, params, [EOS], grammar=SPEC, grammar_after=after, grammar_unless=unless)
        self.scheduler.receive(ToScheduler(new=[new]))
        self.run()
        return self.outputs[1]


def test_a_model_that_thinks_is_free_until_it_has_thought():
    tokens = Script([START, 7, 8, 9, END]).ask()
    assert tokens[:5] == [START, 7, 8, 9, END]
    assert bytes(tokens[5:]) in ANSWERS


def test_a_model_that_does_not_think_follows_its_grammar_from_the_first_token():
    harness = Script([7, 7, 7])
    assert bytes(harness.ask()) in ANSWERS
    assert harness.masks[0] == {ord("t"), START}


def test_a_reasoning_that_the_prompt_began_is_free_at_once():
    tokens = Script([7, START, END]).ask(unless=-1)
    assert tokens[:3] == [7, START, END]
    assert bytes(tokens[3:]) in ANSWERS


@pytest.mark.parametrize("overlap", [True, False])
def test_the_start_of_a_reasoning_counts_only_as_the_first_token(overlap):
    tokens = Script([ord("t"), START], overlap=overlap).ask()
    assert bytes(tokens) in ANSWERS
