"""Requests with a grammar beside others without, on a model that says anything it may: bytes chosen by a hash."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.grammar import GrammarCompiler, GrammarSpec, Vocabulary, bitmask_words
from backend.grammar.compiler import compile_grammar
from backend.messages import NewRequest, ToScheduler
from backend.sampling_params import SamplingParams
from backend.scheduler.limits import SchedulerLimits, make_rows
from backend.scheduler.loop import Scheduler
from tests.backend.scheduler.fake_runner import FakeRunner

VOCABULARY = Vocabulary.of_bytes()
EOS = VOCABULARY.tokenizer.eos_token
FREE_TEXT = np.arange(200)  # the tokens that the fake model chooses from without a grammar
GRAMMARS = [
    GrammarSpec("regex", "yes, certainly|yes, but not now|no"),
    GrammarSpec("regex", "[ab]{3}-end of the line-[cd]{2}"),
    GrammarSpec("regex", "a+b"),
    GrammarSpec("regex", "the only answer"),
    GrammarSpec(
        "json_schema",
        json.dumps(
            {
                "type": "object",
                "properties": {"name": {"enum": ["Ada", "Alan"]}, "is_a_mathematician": {"type": "boolean"}},
                "required": ["name", "is_a_mathematician"],
                "additionalProperties": False,
            }
        ),
    ),
]


def pick(tokens, allowed):
    value = 0
    for token in tokens:
        value = (value * 31 + int(token) + 7) % 1_000_003
    return int(allowed[value % len(allowed)])


def allowed_tokens(bits):
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))


def follow(prompt, spec, max_new, pick=pick, everything=FREE_TEXT):
    """What a request must answer: one token after the other, each from the grammar's mask or from ``everything``."""
    state = None if spec is None else compile_grammar(spec, VOCABULARY).start()
    bits = np.zeros(bitmask_words(VOCABULARY.size), np.int32)
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_new:
        if state is not None:
            state.fill_mask(bits)
        tokens.append(pick(tokens, everything if state is None else allowed_tokens(bits)))
        if tokens[-1] == EOS:
            break
        if state is not None:
            state.advance(tokens[-1])
            if state.is_done:
                break
    return tokens[len(prompt) :]


class ByteRunner(FakeRunner):
    def chooser(self, batch):
        allowed = [FREE_TEXT] * len(batch.rows)
        if batch.allowed is not None:
            for row, bits in zip(batch.allowed.rows, batch.allowed.bits, strict=True):
                allowed[row] = allowed_tokens(bits)
        return lambda i, tokens: pick(tokens, allowed[i])


class GuidedHarness:
    def __init__(self, compiler=None, late=False, **limits):
        sizes = {"max_running_requests": 4, "max_queued_requests": None, "context_length": 128, "num_pages": 64}
        sizes |= {"page_size": 4, "prefill_budget": 16, "check_invariants": True, "vocab_size": VOCABULARY.size}
        self.limits = SchedulerLimits(**(sizes | limits))
        host_pages = self.limits.host.pages if self.limits.host else 0
        self.runner = ByteRunner(self.limits.num_pages, self.limits.page_size, late, host_pages)
        compiler = compiler or GrammarCompiler(lambda: VOCABULARY)
        self.scheduler = Scheduler(self.runner, self.limits, make_rows(self.limits), compiler)
        self.outputs, self.finished, self.asked, self.cached = {}, {}, {}, {}

    def add(self, prompt, spec, max_new=60):
        uid = len(self.asked) + 1
        self.asked[uid] = (prompt, spec, max_new)
        ids = np.array(prompt, np.int32).tobytes()
        params = SamplingParams(max_new_tokens=max_new, temperature=0)
        self.scheduler.receive(ToScheduler(new=[NewRequest(uid, ids, params, [EOS], grammar=spec)]))
        return uid

    def run(self):
        for _ in range(10_000):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("the scheduler does not come to an end")

    def step(self):
        out = self.scheduler.step()
        self.cached.update(out.started)
        for uid, token in zip(out.uids, out.tokens, strict=True):
            assert uid not in self.finished
            assert uid in self.cached
            self.outputs.setdefault(uid, []).append(token)
        self.finished.update({finish.uid: finish for finish in out.finished})
        return out

    def check(self, aborted=()):
        for uid, (prompt, spec, max_new) in self.asked.items():
            if uid in aborted:
                continue
            expected = follow(prompt, spec, max_new)
            assert self.outputs[uid] == expected
            assert self.finished[uid].kind == ("length" if len(expected) == max_new else "stop")
        rows = self.scheduler.rows
        assert self.scheduler.slots.free_slots == self.limits.max_running_requests
        assert rows.pages.free_pages + rows.radix.evictable_pages == self.limits.num_pages


REQUEST = st.tuples(
    st.lists(st.integers(1, 150), min_size=1, max_size=20),
    st.sampled_from([None, *GRAMMARS]),
    st.integers(2, 60),
)


@settings(max_examples=60, deadline=None)  # the machine may be busy
@given(
    st.lists(REQUEST, min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([25, 64, 256]),
    st.sets(st.integers(1, 8)),
)
def test_answers_follow_their_grammars_whatever_happens_around_them(requests, overlap, page, tokens, aborted):
    harness = GuidedHarness(overlap=overlap, page_size=page, num_pages=max(-(-90 // page), tokens // page))
    for number, (prompt, spec, max_new) in enumerate(requests):
        harness.add(prompt, spec, max_new)
        if number % 2:
            harness.step()
    for uid in aborted & set(harness.asked) - set(harness.finished):
        harness.scheduler.receive(ToScheduler(abort=[uid]))
    harness.run()
    harness.check(aborted)


def test_forced_tokens_take_one_step():
    harness = GuidedHarness()
    harness.add([5, 6], GrammarSpec("regex", "[ab]the only way there is[cd]"))
    harness.run()
    harness.check()
    assert len(harness.outputs[1]) == len("athe only way there isc")
    assert harness.runner.steps <= 3


def test_an_answer_may_begin_with_forced_tokens():
    harness = GuidedHarness()
    harness.add([5, 6], GrammarSpec("regex", "certainly[cd]"))
    harness.run()
    harness.check()
    assert harness.runner.steps == 1
    assert harness.cached == {1: 0}


@pytest.mark.parametrize("max_new", range(1, 12))
def test_forced_tokens_keep_to_the_length(max_new):
    harness = GuidedHarness()
    harness.add([5, 6], GrammarSpec("regex", "[ab]certainly so"), max_new)
    harness.run()
    harness.check()


def test_a_bad_grammar_ends_its_request_alone():
    harness = GuidedHarness()
    bad, good = harness.add([1], GrammarSpec("regex", "(")), harness.add([2], GRAMMARS[0])
    harness.run()
    harness.check(aborted={bad})
    assert (harness.finished[bad].kind, harness.finished[bad].status_code) == ("abort", 400)
    assert "regex" in harness.finished[bad].message
    assert harness.finished[good].kind == "stop"


def test_without_grammars_such_requests_are_refused():
    limits = SchedulerLimits(
        max_running_requests=1, max_queued_requests=None, context_length=16, num_pages=8, page_size=4, prefill_budget=8
    )
    scheduler = Scheduler(ByteRunner(8, 4), limits, make_rows(limits))
    params = SamplingParams(max_new_tokens=4)
    new = NewRequest(1, np.array([1], np.int32).tobytes(), params, [EOS], grammar=GRAMMARS[0])
    scheduler.receive(ToScheduler(new=[new]))
    (finish,) = scheduler.step().finished
    assert (finish.status_code, "--grammar-backend" in finish.message) == (400, True)


def test_tokens_of_an_answer_that_is_over_do_not_reach_the_next_owner_of_its_row():
    harness = GuidedHarness(max_running_requests=2, overlap=True)
    harness.add([5, 6], GrammarSpec("regex", "[ab] and the end"))  # ends with forced tokens, which no step computes
    harness.run()
    harness.add([7, 8], None, 20)
    for _ in range(4):
        harness.step()
    guided = harness.add([9], GRAMMARS[0])  # while a token of the second is sampled that only the device knows
    harness.scheduler.requests[guided].guide.compiled.result()
    harness.run()
    harness.check()


@pytest.mark.parametrize("spec", [GrammarSpec("regex", ""), GrammarSpec("ebnf", 'root ::= ""')])
def test_a_grammar_that_allows_nothing_but_the_end(spec):
    harness = GuidedHarness()
    uid = harness.add([5, 6], spec)
    harness.run()
    assert harness.finished[uid].kind == "stop"
    assert harness.outputs.get(uid, []) in ([], [EOS])
