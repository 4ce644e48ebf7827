"""What each policy promises, on fleets small enough to reason about."""

from __future__ import annotations

from collections import Counter

import pytest

from policies import POLICY_NAMES, Candidate, LeaseBook, RouteRequest, WorkerLoad, WorkerSpeed, make_policy
from policies.prefix.text_tree import BLOCK

SYSTEM = b"You are a careful assistant who answers in one sentence. " * 20


def fleet(*loads):
    return [Candidate(f"w{index}", load) for index, load in enumerate(loads)]


def idle(count):
    return fleet(*[WorkerLoad()] * count)


def chat(text, **fields):
    return RouteRequest(text=text, prompt_tokens=len(text) // 4, **fields)


def serve(policy, request, candidates, now=0.0):
    decision = policy.choose(request, candidates, now)
    policy.record(request, decision.worker, now)
    return decision


@pytest.fixture
def cache_aware():
    return make_policy("cache_aware", seed=1)


class TestEveryPolicy:
    @pytest.mark.parametrize("name", POLICY_NAMES)
    def test_chooses_among_the_candidates_only(self, name):
        policy = make_policy(name, seed=0)
        for candidates in (idle(1), idle(2), idle(5)[3:], idle(5)):
            for _ in range(20):
                decision = serve(policy, chat(SYSTEM), candidates)
                assert decision.worker in {candidate.worker for candidate in candidates}
                assert decision.reason

    @pytest.mark.parametrize("name", POLICY_NAMES)
    def test_equal_seeds_give_equal_decisions(self, name):
        def run():
            policy = make_policy(name, seed=42)
            return [serve(policy, chat(b"prompt %d " % (i % 7) * 30), idle(4), float(i)) for i in range(60)]

        assert run() == run()

    @pytest.mark.parametrize("name", POLICY_NAMES)
    def test_serves_a_request_without_any_text(self, name):
        policy = make_policy(name, seed=0)
        for _ in range(10):
            serve(policy, RouteRequest(), idle(3))

    @pytest.mark.parametrize("name", [name for name in POLICY_NAMES if name != "bucket"])  # it sorts by length
    def test_spreads_unrelated_prompts_over_an_idle_fleet(self, name):
        policy = make_policy(name, seed=3)
        chosen = Counter(serve(policy, chat(b"%d" % i * 200), idle(4)).worker for i in range(400))
        assert len(chosen) == 4
        assert min(chosen.values()) > 50

    def test_an_unknown_name_is_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"unknown policy 'fastest'.*cache_aware.*round_robin"):
            make_policy("fastest")


class TestRoundRobin:
    def test_goes_round_and_skips_who_is_left_out(self):
        policy = make_policy("round_robin")
        workers = idle(3)
        assert [serve(policy, chat(b""), workers).worker for _ in range(4)] == ["w0", "w1", "w2", "w0"]
        assert [serve(policy, chat(b""), workers[1:]).worker for _ in range(3)] == ["w1", "w2", "w1"]
        assert serve(policy, chat(b""), workers).worker == "w0"

    def test_choosing_alone_does_not_advance(self):
        policy = make_policy("round_robin")
        assert {policy.choose(chat(b""), idle(3), 0.0).worker for _ in range(5)} == {"w0"}


class TestPowerOfTwo:
    def test_never_picks_the_most_loaded(self):
        policy = make_policy("power_of_two", seed=5)
        busy = fleet(WorkerLoad(2, 9000), WorkerLoad(9, 100), WorkerLoad(1, 0, 1))
        assert {policy.choose(chat(SYSTEM), busy, 0.0).worker for _ in range(100)} == {"w1", "w2"}

    def test_weighs_load_by_the_speed_of_the_worker(self):
        policy = make_policy("power_of_two", seed=5)
        slow = Candidate("slow", WorkerLoad(1, 1000), WorkerSpeed(prefill_ms_per_token=1.0))
        fast = Candidate("fast", WorkerLoad(4, 4000), WorkerSpeed(prefill_ms_per_token=0.1))
        assert {policy.choose(chat(b""), [slow, fast], 0.0).worker for _ in range(30)} == {"fast"}


class TestCacheAware:
    def test_follows_the_longest_prefix(self, cache_aware):
        cache_aware.record(chat(SYSTEM + b"first"), "w2", 0.0)
        cache_aware.record(chat(SYSTEM[:300]), "w1", 0.0)
        decision = cache_aware.choose(chat(SYSTEM + b"second"), idle(4), 1.0)
        assert (decision.worker, decision.reason) == ("w2", "warm")
        assert decision.cached_tokens == pytest.approx(len(SYSTEM) / 4, abs=2)
        assert [score.cached_tokens > 0 for score in decision.scores] == [False, True, True, False]

    def test_prediction_is_in_the_tokens_of_the_request(self, cache_aware):
        text = SYSTEM + b"tail"
        cache_aware.record(chat(text[: len(text) // 2]), "w0", 0.0)
        decision = cache_aware.choose(RouteRequest(text=text, prompt_tokens=1000), idle(2), 0.0)
        whole_blocks = len(text) // 2 // BLOCK * BLOCK
        assert decision.cached_tokens == 1000 * whole_blocks // len(text)

    def test_a_whole_match_still_computes_one_token(self, cache_aware):
        request = chat(SYSTEM)
        cache_aware.record(request, "w0", 0.0)
        assert cache_aware.choose(request, idle(2), 0.0).cached_tokens == request.prompt_tokens - 1

    def test_less_than_a_page_is_no_reason_to_prefer_a_worker(self, cache_aware):
        cache_aware.record(chat(SYSTEM[:40]), "w0", 0.0)
        chosen = {cache_aware.choose(chat(SYSTEM[:40] + b"%d" % i * 50), idle(3), 0.0).worker for i in range(60)}
        assert chosen == {"w0", "w1", "w2"}

    def test_spills_when_waiting_costs_more_than_computing_again(self, cache_aware):
        request = chat(SYSTEM + b"question")
        cache_aware.record(request, "w0", 0.0)
        saved = request.prompt_tokens
        little = fleet(WorkerLoad(1, saved // 2), WorkerLoad())
        much = fleet(WorkerLoad(1, saved * 2), WorkerLoad())
        assert cache_aware.choose(request, little, 0.0).worker == "w0"
        decision = cache_aware.choose(request, much, 0.0)
        assert (decision.worker, decision.reason) == ("w1", "spill")

    def test_a_spill_makes_a_second_holder(self, cache_aware):
        request = chat(SYSTEM + b"question")
        cache_aware.record(request, "w0", 0.0)
        serve(cache_aware, request, fleet(WorkerLoad(9, 9000), WorkerLoad()))
        first, second, third = cache_aware.choose(request, idle(3), 1.0).scores
        assert first.cached_tokens == second.cached_tokens == pytest.approx(request.prompt_tokens, abs=BLOCK // 4)
        assert third.cached_tokens == 0

    def test_running_decodes_count(self, cache_aware):
        request = chat(b"hello " * 20)
        chosen = {
            cache_aware.choose(request, fleet(WorkerLoad(50, 0, 50), WorkerLoad()), 0.0).worker for _ in range(20)
        }
        assert chosen == {"w1"}

    def test_a_worker_twice_as_fast_takes_more_of_the_queue(self, cache_aware):
        load = WorkerLoad(1, 1000)
        slow = Candidate("slow", load, WorkerSpeed(0.2))
        fast = Candidate("fast", load, WorkerSpeed(0.1))
        assert cache_aware.choose(chat(SYSTEM), [slow, fast], 0.0).worker == "fast"

    def test_without_its_holder_the_second_best_is_taken(self, cache_aware):
        cache_aware.record(chat(SYSTEM), "w0", 0.0)
        cache_aware.record(chat(SYSTEM[:600]), "w2", 0.0)
        assert cache_aware.choose(chat(SYSTEM), idle(4)[1:], 0.0).worker == "w2"
        assert cache_aware.choose(chat(SYSTEM), idle(4), 0.0).worker == "w0"

    def test_paced_conversations_do_not_pile_up_on_one_worker(self, cache_aware):
        """Nothing is ever in flight when the next one comes, and one worker looks a little faster."""
        book, chosen = LeaseBook(), Counter()
        for i in range(100):
            now = float(i)
            request = chat(b"%03d" % i * 4000)
            candidates = [
                Candidate("w0", book.load("w0", now), WorkerSpeed(0.098)),
                Candidate("w1", book.load("w1", now), WorkerSpeed(0.100)),
            ]
            decision = serve(cache_aware, request, candidates, now)
            book.open(decision.worker, request.prompt_tokens, now).release()
            chosen[decision.worker] += 1
        assert chosen["w0"] == pytest.approx(50, abs=1)

    def test_conversations_that_overlap_share_the_fleet_and_keep_their_worker(self, cache_aware):
        """20 conversations under one system prompt, all in the air at once, on two workers."""
        book, home = LeaseBook(), {}
        for turn in range(4):
            leases = []
            for talk in range(20):
                request = chat(SYSTEM + b"%d says something long; " % talk * 60 * (turn + 1))
                candidates = [Candidate(worker, book.load(worker)) for worker in ("w0", "w1")]
                decision = serve(cache_aware, request, candidates, float(turn))
                home.setdefault(talk, []).append(decision.worker)
                leases.append(book.open(decision.worker, request.prompt_tokens - decision.cached_tokens, float(turn)))
            for lease in leases:
                lease.release()
        assert min(Counter(workers[0] for workers in home.values()).values()) >= 8
        assert sum(len(set(workers)) == 1 for workers in home.values()) >= 16

    @pytest.mark.parametrize("field", ["model", "namespace"])
    def test_models_and_namespaces_do_not_share_prefixes(self, cache_aware, field):
        cache_aware.record(chat(SYSTEM, **{field: "one"}), "w0", 0.0)
        decision = cache_aware.choose(chat(SYSTEM, **{field: "two"}), idle(3), 0.0)
        assert (decision.cached_tokens, decision.reason) == (0, "cold")

    def test_choosing_leaves_the_index_as_it_was(self, cache_aware):
        cache_aware.record(chat(SYSTEM), "w0", 0.0)
        before = cache_aware.stats()
        for _ in range(10):
            cache_aware.choose(chat(SYSTEM + b"more"), idle(3), 5.0)
        assert cache_aware.stats() == before

    def test_a_forgotten_worker_holds_nothing(self, cache_aware):
        cache_aware.record(chat(SYSTEM), "w0", 0.0)
        cache_aware.forget("w0")
        assert cache_aware.choose(chat(SYSTEM), idle(2), 0.0).reason == "cold"

    def test_the_index_stays_within_its_bytes(self):
        policy = make_policy("cache_aware", prefix_bytes=50_000, seed=0)
        for i in range(300):
            serve(policy, chat(b"%d" % i * 500, namespace=f"tenant-{i}"), idle(4), float(i))
            assert policy.stats()["prefix_tree_bytes"] <= 50_000


class TestClosedLoop:
    """Three old conversations under one system prompt, then a new one that tells what is really cached."""

    OLD = [chat(SYSTEM + b"%d" % i * 400) for i in range(3)]
    NEW = chat(SYSTEM + b"new" * 130)

    @pytest.fixture
    def policy(self, cache_aware):
        for request in self.OLD:
            cache_aware.record(request, "w0", 0.0)
        cache_aware.record(self.NEW, "w0", 100.0)
        return cache_aware

    def predicted(self, policy, request):
        (score,) = policy.choose(request, idle(1), 200.0).scores
        return score.cached_tokens

    def test_a_restarted_worker_loses_its_old_conversations_at_once(self, policy):
        policy.observe(self.NEW, "w0", cached_tokens=0, now=101.0)
        assert policy.stats()["prefix_tree_trims"] == 3
        for request in self.OLD:
            assert self.predicted(policy, request) == pytest.approx(len(SYSTEM) / 4, abs=2)
        assert self.predicted(policy, self.NEW) == pytest.approx(self.NEW.prompt_tokens, abs=BLOCK // 4)

    @pytest.mark.parametrize("page", [1, 16, 64])
    def test_page_rounding_trims_nothing(self, policy, page):
        policy.observe(self.NEW, "w0", cached_tokens=len(SYSTEM) // 4 // page * page, now=101.0)
        assert policy.stats()["prefix_tree_trims"] == 0

    def test_a_shared_head_shorter_than_a_page_trims_nothing(self, cache_aware):
        cache_aware.record(chat(SYSTEM[:200] + b"old" * 100), "w0", 0.0)
        cache_aware.record(chat(SYSTEM[:200] + b"new" * 100), "w0", 100.0)
        cache_aware.observe(chat(SYSTEM[:200] + b"new" * 100), "w0", cached_tokens=0, now=101.0)
        assert cache_aware.stats()["prefix_tree_trims"] == 0

    def test_an_honest_report_trims_nothing(self, policy):
        before = policy.stats()
        policy.observe(self.NEW, "w0", cached_tokens=len(SYSTEM) // 4 + 12, now=101.0)
        assert policy.stats() == before

    def test_requests_sent_together_prove_nothing_about_each_other(self, cache_aware):
        for i, request in enumerate([*self.OLD, self.NEW]):
            cache_aware.record(request, "w0", 0.1 * i)
        cache_aware.observe(self.NEW, "w0", cached_tokens=0, now=2.0)
        assert cache_aware.stats()["prefix_tree_trims"] == 0

    def test_another_worker_is_not_trimmed(self, policy):
        for request in self.OLD:
            policy.record(request, "w1", 0.0)
        policy.observe(self.NEW, "w0", cached_tokens=0, now=101.0)
        assert policy.choose(self.OLD[0], idle(2), 200.0).worker == "w1"

    def test_a_report_about_an_unknown_prompt_is_harmless(self, policy):
        policy.observe(chat(b"never seen"), "w9", cached_tokens=0, now=101.0)
        policy.observe(RouteRequest(), "w0", cached_tokens=0, now=101.0)
        assert policy.stats()["prefix_tree_trims"] == 0
