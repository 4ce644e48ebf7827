"""The cost: fast and explained sums agree, and each of its signals does what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import Candidate, LeaseBook, WorkerLoad, WorkerSpeed
from policies.cache_aware import costs
from policies.cost.pressure import Pressure
from policies.cost.reuse import PrefixReuse
from policies.cost.score import score
from policies.cost.traffic import Traffic
from policies.prefix.restart import RestartDetector, Sent

loads = st.builds(
    WorkerLoad,
    st.integers(0, 9),
    st.integers(0, 50_000),
    st.integers(0, 99),
    st.just(0.0),
    st.integers(0, 9000),
    st.floats(0, 5000),
    st.integers(0, 9000),
    st.integers(0, 99),
)
candidates = st.builds(Candidate, st.just("w"), loads, st.builds(WorkerSpeed, st.floats(0.01, 10), st.floats(0, 9)))


@given(st.lists(candidates, max_size=4), st.integers(100, 9000), st.floats(0, 1e-3), st.floats(0, 9000))
def test_the_fast_sum_is_the_explained_one(fleet, tokens, delayed, evicted):
    cached, lost = [99] * len(fleet), [evicted] * len(fleet)
    explained = [score(candidate, tokens, 99, delayed, evicted).total_ms for candidate in fleet]
    assert costs(fleet, tokens, cached, delayed, lost) == pytest.approx(explained)


class TestQueueProgress:
    def test_the_prompt_under_way_shrinks_with_time(self):
        book = LeaseBook()
        book.open("w", 1000, 0.0)
        book.open("w", 500, 0.0)
        assert book.load("w", 0.0).waiting_tokens(0.1) == 1500
        assert book.load("w", 0.05).waiting_tokens(0.1) == pytest.approx(1000)
        assert book.load("w", 9.0).waiting_tokens(0.1) == 500  # the second one has not begun before the first has ended

    def test_a_first_token_starts_the_next_prompt(self):
        book = LeaseBook()
        first = book.open("w", 1000, 0.0)
        book.open("w", 500, 0.0)
        first.first_token(0.2)
        assert book.load("w", 0.2).waiting_tokens(0.1) == 500
        assert book.load("w", 0.22).waiting_tokens(0.1) == pytest.approx(300)

    def test_what_the_backend_says_beyond_ours_is_others(self):
        book = LeaseBook()
        book.open("w", 1000, 0.0)
        book.reported("w", waiting_tokens=5000, decodes=7, now=0.0)
        load = book.load("w", 0.0)
        assert (load.others_tokens, load.running, load.waiting_tokens(0.1)) == (4000, 7, 5000)


def test_later_requests_count_by_arrivals_and_utilisation():
    quiet, busy = Traffic(), Traffic()
    for second in range(120):
        quiet.add(100, float(second))
        for part in range(10):
            busy.add(100, second + part / 10)
    assert busy.delayed_per_token(10.0) == pytest.approx(10 * quiet.delayed_per_token(10.0), rel=0.2)
    assert quiet.delayed_per_token(0.2) > 60 * quiet.delayed_per_token(10.0)
    assert Traffic().delayed_per_token(1.0) == 0.0


def test_prefix_reuse_counts_what_is_shared_and_fades():
    reuse, head = PrefixReuse(), b"system prompt " * 100
    for tail in range(5):
        reuse.add(head + b"%d" % tail * 50, len(head) + tail, 0.0)
    assert reuse.recent(head + b"another", len(head) + 3, 0.0) == 5
    assert reuse.recent(head + b"another", len(head), 10.0) == pytest.approx(2.5)
    assert reuse.recent(b"x" * 2000, 1500, 0.0) == 0


def test_pressure_knows_waste_from_overcommitment():
    pressure = Pressure()
    for _ in range(100):
        pressure.add(10.0)
    assert pressure.recomputed(1.0) > 10 * pressure.recomputed(60.0)
    assert pressure.recomputed(3600.0) == 0.0


class TestRestartDetector:
    TALKS = [b"talk %d " % number * 200 for number in range(8)]

    def detector(self):
        detector = RestartDetector()
        for number, text in enumerate(self.TALKS):
            detector.sent("w", Sent(float(number), "", text, held=len(text)))
        return detector

    def report(self, detector, number, cached):
        text = self.TALKS[number]
        return detector.reported("w", detector.find("w", "", text), cached, tokens=len(text) // 4)

    def test_three_prompts_that_should_have_been_there_prove_a_restart(self):
        detector = self.detector()
        assert self.report(detector, 0, 0) is None
        assert self.report(detector, 1, 0) is None
        assert [prompt.text for prompt in self.report(detector, 2, 0)] == self.TALKS

    def test_one_hit_of_old_knowledge_clears_the_worker(self):
        detector = self.detector()
        for number in (0, 1):
            assert self.report(detector, number, 0) is None
        assert self.report(detector, 3, len(self.TALKS[3]) // 4 - 1) is None
        assert self.report(detector, 4, 0) is None
        assert self.report(detector, 5, 0) is None

    def test_right_predictions_raise_no_suspicion(self):
        detector = self.detector()
        assert all(self.report(detector, number, len(self.TALKS[number]) // 4 - 1) is None for number in range(8))
