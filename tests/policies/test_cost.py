"""The cost: fast and explained sums agree, and each of its signals does what it says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import Candidate, LeaseBook, RateBook, RouteRequest, WorkerLoad, WorkerSpeed, make_policy
from policies.cost.fleet_view import SCANNED, Roster, view_of
from policies.cost.pressure import Pressure
from policies.cost.reuse import PrefixReuse
from policies.cost.score import score, wait_of
from policies.cost.traffic import BUSIEST, LATER_WEIGHT, STAYING, WINDOW_S, Traffic
from policies.prefix.restart import RestartDetector, Sent


@st.composite
def fleets(draw):
    """Books after some events, and the time of the last one."""
    leases, speeds, now = LeaseBook(), RateBook(), 0.0
    workers = ["a", "b", "c"]
    held = []
    for _ in range(draw(st.integers(0, 20))):
        now += draw(st.floats(0, 2))
        worker = draw(st.sampled_from(workers))
        event = draw(st.sampled_from(["open", "open", "first", "release", "report", "speed", "forget"]))
        if event == "open":
            held.append(leases.open(worker, draw(st.integers(0, 9000)), now))
        elif event == "report":
            leases.reported(worker, draw(st.integers(0, 20_000)), draw(st.integers(0, 99)), now)
        elif event == "speed":
            speeds.observe(worker, draw(st.integers(50, 9000)), WorkerLoad(), draw(st.floats(1, 5000)), now)
        elif event == "forget":
            leases.forget(worker)
            speeds.forget(worker)
        elif held:
            lease = draw(st.sampled_from(held))
            lease.first_token(now) if event == "first" else lease.release()
    return workers, leases, speeds, now + draw(st.floats(0, 10))


@settings(deadline=None)
@given(fleets(), st.integers(100, 9000), st.lists(st.floats(0, 1e-3), min_size=3, max_size=3), st.integers(0, 99))
def test_a_view_tells_what_the_books_and_the_explained_cost_say(fleet, tokens, delayed, known):
    workers, leases, speeds, now = fleet
    view = Roster(workers, leases, speeds).view(now)
    plain = []
    for worker in workers:
        load = leases.load(worker, now)
        plain.append(Candidate(worker, load, speeds.speed(worker, None if load.requests else now)))
    assert list(view) == [view[index] for index in range(len(view))] == plain
    explained = [
        score(each.worker, wait_of(each), tokens, known, later).total_ms
        for each, later in zip(plain, delayed, strict=True)
    ]
    cached = [known] * len(workers)
    assert view.costs(tokens, cached, delayed) == pytest.approx(explained)
    assert view_of(plain).costs(tokens, cached, delayed) == explained
    assert view.recent(range(3)) == view_of(plain).recent(range(3)) == [each.load.recent_tokens for each in plain]
    assert view.tokens_per_ms() == pytest.approx(view_of(plain).tokens_per_ms())


def test_a_view_keeps_what_it_saw_and_its_roster_survives_a_worker_that_comes_back():
    leases, speeds = LeaseBook(), RateBook()
    roster = Roster(["a", "b"], leases, speeds)
    before = roster.view(0.0)
    leases.open("a", 500, 0.0)
    assert (before[0].load.prefill_tokens, roster.view(0.0)[0].load.prefill_tokens) == (0, 500)
    leases.forget("a")
    leases.open("a", 70, 1.0)
    assert roster.view(1.0)[0].load.prefill_tokens == 70


def test_of_a_large_fleet_only_what_is_picked_is_looked_at():
    leases, speeds = LeaseBook(), RateBook()
    workers = [f"w{index}" for index in range(SCANNED + 40)]
    view = Roster(workers, leases, speeds).view(0.0)
    picked = view.pick([3, 90])
    leases.open("w3", 500, 0.0)
    leases.open("w5", 500, 0.0)
    assert [each.worker for each in picked] == ["w3", "w90"]
    assert picked.costs(1000, [0, 999], [0.0, 0.0]) == pytest.approx([100.0, 0.1])
    assert view[3].load.requests == 0  # as it was when it was looked at
    assert view[5].load.requests == 1
    assert (len(view), view.find("w90"), view.find("elsewhere")) == (SCANNED + 40, 90, None)


def test_a_large_fleet_can_be_looked_at_when_all_of_it_is_gone():
    leases, speeds = LeaseBook(), RateBook()
    workers = [f"w{index}" for index in range(SCANNED + 1)]
    for _ in range(3):
        speeds.observe("w5", 1000, WorkerLoad(), 100.0, 0.0)
    view = Roster(workers, leases, speeds).view(1e6)  # after so long a second chance is due
    for worker in workers:
        leases.forget(worker)
        speeds.forget(worker)
    assert view[5].speed.prefill_ms_per_token == pytest.approx(0.1)


def test_evictions_cost_what_computing_again_takes():
    wait = wait_of(Candidate("w", WorkerLoad(2, 1000), WorkerSpeed(0.5)))
    with_evictions, without = (score("w", wait, 900, 100, 1e-4, tokens).total_ms for tokens in (300.0, 0.0))
    assert with_evictions == pytest.approx(without + 150.0)


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
        quiet.add("w", 100, float(second))
        for part in range(10):
            busy.add("w", 100, second + part / 10)
    assert busy.delayed_per_token(10.0) == pytest.approx(10 * quiet.delayed_per_token(10.0), rel=0.2)
    assert quiet.delayed_per_token(0.2) > 60 * quiet.delayed_per_token(10.0)
    assert Traffic().delayed_per_token(1.0) == 0.0


@given(st.floats(1e-9, 1e-3))
def test_a_burst_at_the_start_counts_as_the_busiest_traffic_and_no_more(pause):
    traffic, tokens = Traffic(), 500
    traffic.add("w", tokens, 7.0)
    assert traffic.delayed_per_token(10.0) == 0.0
    traffic.add("w", tokens, 7.0 + pause)
    assert traffic.delayed_per_token(10.0) == pytest.approx(LATER_WEIGHT * BUSIEST / (1 - BUSIEST) / tokens)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 300) | st.just(1e5)), max_size=60),
    st.floats(1e-6, 1e3),
)
def test_later_requests_are_expected_where_the_last_ones_went(sent, mean):
    """Against the sums as one would write them down, gaps of a day among them."""
    traffic, now, arrivals = Traffic(), 0.0, []
    for worker, pause in sent:
        now += pause
        arrivals.append((worker, now))
        traffic.add(worker, 100, now)
    counts = [1.0 + sum(math.exp((at - now) / WINDOW_S) for worker, at in arrivals if worker == each) for each in "abc"]
    expected = [mean * (1 - STAYING + STAYING * 3 * count / sum(counts)) for count in counts]
    assert traffic.spread(mean, "abc") == pytest.approx(expected)


def test_a_worker_that_is_forgotten_is_new_when_it_comes_back():
    traffic = Traffic()
    for second in range(30):
        traffic.add("ab"[second % 2], 100, float(second))
    traffic.forget("a")
    forgotten, busy, new = traffic.spread(1.0, ["a", "b", "c"])
    assert forgotten == new < 1.0 < busy


def test_a_long_prompt_goes_where_it_holds_up_fewer_others():
    policy = make_policy("cache_aware", seed=0)
    popular = b"You are a helpful assistant of the harbour office. " * 400
    for number in range(200):
        policy.record(RouteRequest(popular + b"%d" % number, 5000), "busy", number / 10)
        if number % 20 == 0:
            policy.record(RouteRequest(b"%d" % number * 9000, 5000), "quiet", number / 10)
    load = WorkerLoad(requests=1, prefill_tokens=500)
    candidates = [Candidate("busy"), Candidate("quiet", load)]
    cold = policy.choose(RouteRequest(b"something else " * 2000, 7500), candidates, 20.0)
    hot = policy.choose(RouteRequest(popular + b"and?", 5000), candidates, 20.0)
    assert (cold.worker, hot.worker) == ("quiet", "busy")
    later = {score.worker: score.later_ms for score in cold.scores}
    assert later["busy"] > 2 * later["quiet"]


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


def test_in_a_large_fleet_those_that_are_known_to_hold_the_prompt_are_weighed():
    """Nothing was placed by this policy: only the events tell."""
    workers = [f"w{index}" for index in range(400)]
    view = Roster(workers, LeaseBook(), RateBook()).view(0.0, {"w321": 900}.get, ["w321"])
    request = RouteRequest(b"x" * 4000, 1000)
    decision = make_policy("cache_aware", seed=0).choose(request, view, 0.0)
    assert (decision.worker, decision.cached_tokens, decision.reason) == ("w321", 900, "warm")
