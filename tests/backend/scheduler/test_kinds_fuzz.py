"""Random lives of requests of every kind at once: free text, grammars (also after reasoning), and embeddings.

The grammars of a life are compiled when it says so, so that requests wait for them at any point.
"""

import os
from concurrent.futures import Future
from typing import ClassVar

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import event as note
from hypothesis import strategies as st

from backend.cache.host_tree import WRITE_POLICIES, HostSettings
from backend.grammar import bitmask_words
from backend.grammar.compiler import compile_grammar
from backend.grammar.libraries import LLGUIDANCE, filler_of
from backend.messages import NewRequest, ToScheduler
from backend.sampling_params import SamplingParams
from tests.backend.scheduler.fake_runner import fold
from tests.backend.scheduler.test_guided import EOS, GRAMMARS, VOCABULARY, GuidedHarness, follow, pick

CONTEXT = 96
TEXTS = [[1 + (i * i // (salt + 2) + salt) % 150 for i in range(40)] for salt in range(2)]
THINK_END = 20  # a token that ends the reasoning


class HandCompiler:
    """Compiles what it was given when it is told to."""

    def __init__(self):
        self._asked = []

    def filler(self):
        return filler_of(LLGUIDANCE)

    def submit(self, spec):
        future = Future()
        self._asked.append((spec, future))
        return future

    def compile(self):
        for spec, future in self._asked:
            future.set_result(compile_grammar(spec, VOCABULARY))
        self._asked.clear()


class KindsHarness(GuidedHarness):
    """``asked`` has (prompt, grammar, tokens, the token that it begins after, pooling)."""

    tolerance: ClassVar = {"rtol": 0.0}  # of vectors

    def __init__(self, **limits):
        self.hand = HandCompiler()
        self.vectors = {}
        super().__init__(self.hand, **limits)

    def answer(self, prompt, spec, max_new, after):
        return answer(prompt, spec, max_new, after)

    def vector(self, prompt, pooling):
        mean = np.array([sum(prompt)], np.float32) / np.float32(len(prompt))
        return mean if pooling == "mean" else fold(prompt)

    def ask(self, prompt, spec=None, max_new=0, after=-1, pooling="", priority=0):
        uid = len(self.asked) + 1
        self.asked[uid] = (prompt, spec, max_new, after, pooling)
        params = SamplingParams(max_new_tokens=max_new, temperature=0)
        ids = np.array(prompt, np.int32).tobytes()
        new = NewRequest(
            uid, ids, params, [EOS], "", priority, grammar=spec, grammar_after=after, pooling=pooling
        )  # fmt: skip
        self.scheduler.receive(ToScheduler(new=[new]))

    def step(self):
        out = super().step()
        for uid, vector in out.embeddings:
            assert uid not in self.vectors
            self.vectors[uid] = np.frombuffer(vector, np.float32)
        return out

    def compile(self):
        self.hand.compile()

    def run(self):
        self.compile()
        super().run()

    def check(self, aborted=()):
        for uid, (prompt, spec, max_new, after, pooling) in self.asked.items():
            if uid in aborted:
                continue
            if pooling:
                np.testing.assert_allclose(self.vectors[uid], self.vector(prompt, pooling), **self.tolerance)
                assert uid not in self.outputs
            else:
                assert self.outputs[uid] == self.answer(prompt, spec, max_new, after)
            assert self.finished[uid].kind in ("stop", "length")
        rows = self.scheduler.rows
        assert self.scheduler.slots.free_slots == self.limits.max_running_requests
        assert rows.pages.free_pages + rows.radix.evictable_pages == self.limits.num_pages


def answer(prompt, spec, max_new, after, **model):
    """What a request must answer: freely until the token ``after``. ``model``: see ``follow``."""
    if after < 0:
        return follow(prompt, spec, max_new, **model)
    model = {"pick": pick, "everything": np.arange(32 * bitmask_words(VOCABULARY.size))} | model
    thought = []
    while len(thought) < max_new:
        thought.append(model["pick"](prompt + thought, model["everything"]))
        if thought[-1] == EOS:
            return thought
        if thought[-1] == after:
            return thought + follow(prompt + thought, spec, max_new - len(thought), **model)
    return thought


PROMPT = st.builds(
    lambda text, length, tail: (TEXTS[text][:length] + tail) or [1],
    st.integers(0, 1),
    st.integers(0, 40) | st.integers(25, 40),
    st.lists(st.integers(1, 150), max_size=2),
)
TOKENS = st.integers(1, 12) | st.integers(20, 50)
ASK = st.one_of(
    st.fixed_dictionaries({"prompt": PROMPT, "max_new": TOKENS, "priority": st.integers(0, 3)}),
    st.fixed_dictionaries(
        {
            "prompt": PROMPT,
            "max_new": TOKENS,
            "priority": st.integers(0, 3),
            "spec": st.sampled_from(GRAMMARS),
            "after": st.sampled_from([-1, -1, THINK_END]),
        }
    ),
    st.fixed_dictionaries(
        {"prompt": PROMPT, "pooling": st.sampled_from(["mean", "last"]), "priority": st.integers(0, 3)}
    ),
)
EVENT = st.one_of(
    *[ASK] * 5,
    *[st.tuples(st.just("step"), st.integers(1, 4))] * 3,
    *[st.tuples(st.just("compile"))] * 2,
    st.tuples(st.just("abort"), st.integers(0, 5)),
    st.tuples(st.just("pause"), st.sampled_from(["in_place", "retract"]), st.integers(0, 2)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("run")),
)
HOST = st.builds(HostSettings, st.integers(1, 80), st.sampled_from(list(WRITE_POLICIES)), st.just(1))
LIMITS = st.fixed_dictionaries(
    {
        "max_running_requests": st.integers(1, 5),
        "page_size": st.sampled_from([1, 4, 16]),
        "prefill_budget": st.sampled_from([1, 5, 16, 64]),
        "overlap": st.booleans(),
        "late": st.booleans(),
        "decode_steps": st.sampled_from([1, 3]),
        "conservativeness": st.sampled_from([0.0, 0.0, 0.0, 1.0]),
        "preemption_threshold": st.sampled_from([None, 0, 1]),
        "host": st.none() | HOST | HOST,
    }
)


EPISODES = int(os.environ.get("WARMLANE_FUZZ_EPISODES", "100"))


@settings(max_examples=EPISODES, deadline=None, phases=set(Phase) - {Phase.explain})
@given(LIMITS, st.integers(0, 24), st.lists(EVENT, min_size=10, max_size=30))
def test_random_lives_of_every_kind(limits, room, events):
    page = limits["page_size"]
    if limits["preemption_threshold"] is not None:
        limits = limits | {"schedule_policy": "priority"}
    harness = KindsHarness(**limits, num_pages=-(-CONTEXT // page) + room // page, context_length=CONTEXT)
    harness.check(live(harness, events))
    stats = harness.scheduler.stats
    note(f"retracted: {stats.retracted_total > 0}")
    note(f"from the host: {stats.loaded_tokens_total > 0}")


def live(harness, events):
    """Let everything of ``events`` happen; returns the requests that were aborted."""
    aborted = set()
    for event in events:
        match event:
            case dict():
                harness.ask(**event)
            case ("step", count):
                for _ in range(count):
                    harness.step()
            case ("compile",):
                harness.compile()
            case ("abort", back) if len(harness.asked) > back:
                uid = len(harness.asked) - back
                harness.scheduler.receive(ToScheduler(abort=[uid]))
                aborted |= {uid} - set(harness.finished)
            case ("pause", mode, steps):
                harness.scheduler.receive(ToScheduler(pause=mode))
                for _ in range(steps):
                    harness.step()
                harness.scheduler.receive(ToScheduler(resume=True))
            case ("flush",):
                harness.scheduler.receive(ToScheduler(flush_cache=1))
                harness.step()
            case ("run",):
                harness.run()
    harness.step()  # what messages brought about comes out with the next step, also where no work is left
    harness.run()
    return aborted


def test_those_who_wait_for_a_grammar_are_counted():
    harness = KindsHarness()
    harness.ask([1, 2], max_new=3)
    harness.ask([1, 2, 3], GRAMMARS[0], max_new=3)
    harness.ask([1, 2, 4], GRAMMARS[1], max_new=3)
    harness.step()
    harness.scheduler.count()
    assert harness.scheduler.stats.waiting_for_grammars == 2
    harness.run()
    harness.scheduler.count()
    assert harness.scheduler.stats.waiting_for_grammars == 0
    harness.check()


def test_nobody_gives_way_to_a_request_whose_grammar_is_not_ready():
    harness = KindsHarness(max_running_requests=1, schedule_policy="priority", preemption_threshold=0)
    harness.ask([1, 2], max_new=9)
    harness.step()
    harness.ask([1, 2, 3], GRAMMARS[0], max_new=3, priority=5)
    for _ in range(3):
        harness.step()
    assert harness.scheduler.stats.retracted_total == 0
    harness.ask([1, 2, 4], max_new=2, priority=4)  # passes the one that waits
    harness.step()
    assert harness.scheduler.stats.retracted_total == 1
    harness.run()
    harness.check()
