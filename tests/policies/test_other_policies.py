"""The policies without an index: least load, hashing, sessions, buckets, named workers; the flags of cache_aware."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import POLICY_NAMES, Candidate, PolicyOptions, RouteRequest, WorkerLoad, WorkerSpeed, make_policy
from policies.cost.fleet_view import SCANNED, Roster
from policies.cost.leases import LeaseBook
from policies.cost.rates import RateBook
from policies.prefix import hash_ring
from policies.prefix.hash_ring import HashRing

HASHING = ["prefix_hash", "consistent_hashing"]
points_of = hash_ring._points_of


def fleet(*requests):
    return [Candidate(f"http://w{index}:80", WorkerLoad(requests=count)) for index, count in enumerate(requests)]


def keyed(key, text=b"", tokens=10):
    return RouteRequest(text=text or key.encode() * 100, prompt_tokens=tokens, routing_key=key)


def choose(policy, request, candidates, now=0.0):
    return policy.choose(request, candidates, now)


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_of_a_large_fleet_only_some_are_weighed(name):
    looked_at = []
    policy = make_policy(name, seed=1)
    roster = Roster([f"http://w{index}:80" for index in range(512)], LeaseBook(), RateBook())
    for now in (1.0, 2.0):
        looked_at.clear()
        request = keyed("somebody")
        decision = policy.choose(request, roster.view(now, looked_at.append), now)
        policy.record(request, decision.worker, now)
        assert len(looked_at) <= SCANNED + 4


class TestLeastLoad:
    def test_waits_in_milliseconds_and_not_in_requests(self):
        one_long = Candidate("long", WorkerLoad(1, 30_000))
        many_short = Candidate("short", WorkerLoad(5, 500))
        assert choose(make_policy("least_load"), keyed("a"), [one_long, many_short]).worker == "short"

    def test_prefers_the_faster_of_two_idle_workers(self):
        slow, fast = Candidate("slow", speed=WorkerSpeed(0.2)), Candidate("fast", speed=WorkerSpeed(0.1))
        assert choose(make_policy("least_load"), keyed("a"), [slow, fast]).worker == "fast"

    def test_work_that_other_routers_sent_counts(self):
        told, idle = Candidate("told", WorkerLoad(others_tokens=5000)), Candidate("idle")
        assert choose(make_policy("least_load"), keyed("a"), [told, idle]).worker == "idle"

    def test_of_a_large_fleet_only_some_are_looked_at(self):
        policy, workers = make_policy("least_load", seed=0), fleet(*[0] * 300)
        assert choose(policy, keyed("a"), workers).worker in {candidate.worker for candidate in workers}


class TestHashing:
    @pytest.mark.parametrize("name", HASHING)
    def test_a_key_has_one_worker_in_every_replica(self, name):
        for key in ("alice", "bob", "carol"):
            chosen = {choose(make_policy(name, seed=seed), keyed(key), fleet(0, 0, 0, 0)).worker for seed in range(5)}
            assert len(chosen) == 1

    @pytest.mark.parametrize("name", HASHING)
    def test_keys_are_spread(self, name):
        policy = make_policy(name, seed=0)
        counts = Counter(choose(policy, keyed(f"user {i}"), fleet(0, 0, 0, 0)).worker for i in range(2000))
        assert len(counts) == 4
        assert max(counts.values()) < 2 * min(counts.values())

    @pytest.mark.parametrize("name", HASHING)
    def test_a_home_above_the_bound_overflows_to_one_and_the_same_neighbour(self, name):
        policy = make_policy(name, seed=0)
        home = choose(policy, keyed("alice"), fleet(0, 0, 0, 0))
        assert home.reason == "home"
        busy = [c._replace(load=WorkerLoad(requests=50 if c.worker == home.worker else 1)) for c in fleet(0, 0, 0, 0)]
        over = {(d.worker, d.reason) for d in (choose(policy, keyed("alice"), busy) for _ in range(5))}
        ((worker, reason),) = over
        assert worker != home.worker
        assert reason == "overflow"

    @pytest.mark.parametrize("name", HASHING)
    def test_without_a_bound_a_home_keeps_its_keys(self, name):
        policy = make_policy(name, seed=0, options=PolicyOptions(prefix_hash_load_factor=float("inf")))
        home = choose(policy, keyed("alice"), fleet(0, 0, 0, 0)).worker
        busy = [c._replace(load=WorkerLoad(requests=900 if c.worker == home else 0)) for c in fleet(0, 0, 0, 0)]
        assert choose(policy, keyed("alice"), busy)[:3] == (home, 0, "home")

    def test_only_the_first_tokens_count(self):
        policy = make_policy("prefix_hash", options=PolicyOptions(prefix_token_count=4))
        head = b"0123456789abcdef"
        chosen = {choose(policy, keyed("k", head + b"%d" % i), fleet(0, 0, 0, 0)).worker for i in range(20)}
        assert len(chosen) == 1

    @given(st.integers(2, 8), st.integers(0, 2**64 - 1), st.data())
    def test_a_worker_that_leaves_moves_its_own_keys_only(self, count, key, data):
        workers = tuple(f"w{index}" for index in range(count))
        gone = data.draw(st.sampled_from(workers))
        ring = HashRing()
        ring.place(workers)
        before = workers[next(ring.walk(key))]
        left = tuple(worker for worker in workers if worker != gone)
        ring.place(left)
        after = left[next(ring.walk(key))]
        assert after == before or before == gone

    def test_rings_of_several_models_are_kept(self, monkeypatch):
        built = []
        monkeypatch.setattr(hash_ring, "_points_of", lambda workers: built.append(workers) or points_of(workers))
        ring = HashRing()
        for _ in range(3):
            for workers in (("a", "b"), ("c", "d", "e")):
                ring.place(workers)
                assert len(list(ring.walk(7))) == len(workers)
        assert len(built) == 2
        for number in range(100):
            ring.place((f"w{number}",))
        assert len(ring._built) <= hash_ring.MAX_SETS

    @given(st.integers(1, 8), st.integers(0, 2**64 - 1))
    def test_a_walk_meets_every_worker_once(self, count, key):
        ring = HashRing()
        ring.place(tuple(f"w{index}" for index in range(count)))
        assert sorted(ring.walk(key)) == list(range(count))


class TestManual:
    def serve(self, policy, key, candidates, now=0.0):
        decision = choose(policy, keyed(key), candidates, now)
        policy.record(keyed(key), decision.worker, now)
        return decision

    def test_a_session_stays_and_moves_when_its_worker_cannot_be_chosen(self):
        policy, workers = make_policy("manual", seed=1), fleet(0, 0, 0)
        first = self.serve(policy, "alice", workers)
        assert first.reason == "new"
        assert {self.serve(policy, "alice", workers).worker for _ in range(5)} == {first.worker}
        rest = [candidate for candidate in workers if candidate.worker != first.worker]
        moved = self.serve(policy, "alice", rest)
        assert moved.reason == "moved"
        assert self.serve(policy, "alice", workers).worker == moved.worker

    def test_a_long_key_is_no_burden(self):
        policy, workers = make_policy("manual", seed=1), fleet(0, 0, 0)
        for user in "ab":
            first = self.serve(policy, user * 10**6, workers)
            assert self.serve(policy, user * 10**6, workers).worker == first.worker
        assert policy.stats() == {"sticky_sessions": 2}
        assert max(map(len, policy._sessions)) < 200

    def test_an_idle_session_is_forgotten(self):
        policy = make_policy("manual", seed=1, options=PolicyOptions(max_idle_secs=60))
        self.serve(policy, "alice", fleet(0, 0), now=0.0)
        assert self.serve(policy, "alice", fleet(0, 0), now=59.0).reason == "session"
        assert self.serve(policy, "alice", fleet(0, 0), now=120.0).reason == "new"
        self.serve(policy, "bob", fleet(0, 0), now=500.0)
        assert policy.stats() == {"sticky_sessions": 1}

    def test_new_sessions_by_load_and_by_number_of_sessions(self):
        by_load = make_policy("manual", options=PolicyOptions(assignment_mode="min_load"))
        busy = [Candidate("busy", WorkerLoad(3, 900)), Candidate("free")]
        assert choose(by_load, keyed("alice"), busy).worker == "free"
        by_group = make_policy("manual", seed=0, options=PolicyOptions(assignment_mode="min_group"))
        chosen = Counter(self.serve(by_group, f"user {i}", fleet(9, 0, 0)).worker for i in range(30))
        assert set(chosen.values()) == {10}

    def test_a_worker_that_is_gone_has_no_sessions(self):
        policy = make_policy("manual", seed=0)
        self.serve(policy, "alice", fleet(0))
        policy.forget("http://w0:80")
        assert policy.stats() == {"sticky_sessions": 0}

    def test_an_unknown_mode_is_refused(self):
        with pytest.raises(ValueError, match=r"'best'.*min_group"):
            make_policy("manual", options=PolicyOptions(assignment_mode="best"))


class TestBucket:
    def test_short_and_long_prompts_part(self):
        policy, chosen = make_policy("bucket", seed=0), {}
        for i in range(300):
            tokens = (100, 3000)[i % 2]
            request = keyed("k", tokens=tokens)
            decision = choose(policy, request, fleet(0, 0), now=float(i))
            policy.record(request, decision.worker, float(i))
            if i > 100:
                chosen.setdefault(tokens, Counter())[decision.worker] += 1
        assert set(chosen[100]) == {"http://w0:80"}
        assert chosen[3000]["http://w1:80"] > 0.4 * chosen[3000].total()  # half of all work is half of the long ones

    def test_a_busy_bucket_is_left(self):
        policy = make_policy("bucket", seed=0)
        request = keyed("k", tokens=100)
        policy.record(request, "w", 0.0)
        busy = [Candidate("a", WorkerLoad(9, 90_000)), Candidate("b")]
        assert {choose(policy, request, busy, 1.0).worker for _ in range(20)} == {"b"}


class TestPassthrough:
    @pytest.mark.parametrize("target", ["1", "http://w1:80", "w1:80", "http://w1:80/"])
    @pytest.mark.parametrize("name", ["passthrough", "consistent_hashing"])
    def test_goes_where_it_is_sent(self, name, target):
        request = RouteRequest(text=b"x", prompt_tokens=1, routing_key="k", target=target)
        decision = choose(make_policy(name, seed=0), request, fleet(0, 9, 0))
        assert (decision.worker, decision.reason) == ("http://w1:80", "target")

    @pytest.mark.parametrize("target", ["", "7", "9" * 5000, "http://elsewhere:80"])
    def test_without_a_worker_of_that_name_load_decides(self, target):
        request = RouteRequest(text=b"x", prompt_tokens=1, target=target)
        assert choose(make_policy("passthrough", seed=0), request, fleet(5, 0, 5)).worker == "http://w1:80"


class TestThresholdsOfCacheAware:
    TEXT = b"The quick brown fox jumps over the lazy dog. " * 40

    def policy(self, **options):
        policy = make_policy("cache_aware", seed=0, options=PolicyOptions(**options))
        policy.record(RouteRequest(self.TEXT[:900], 225), "http://w0:80", 0.0)
        return policy

    @pytest.mark.parametrize(("threshold", "credited"), [(None, True), (0.3, True), (0.6, False)])
    def test_a_share_below_the_threshold_earns_no_credit(self, threshold, credited):
        decision = choose(self.policy(cache_threshold=threshold), RouteRequest(self.TEXT, 450), fleet(0, 0))
        assert (decision.scores[0].cached_tokens > 0) is credited

    @pytest.mark.parametrize(("threshold", "credit"), [(None, 200), (0.3, 200), (0.6, 0)])
    def test_nor_does_one_that_is_known_exactly(self, threshold, credit):
        candidates = [each._replace(held=200 * (each.worker == "http://w1:80")) for each in fleet(0, 0)]
        decision = choose(self.policy(cache_threshold=threshold), RouteRequest(self.TEXT, 450), candidates)
        assert [score.cached_tokens for score in decision.scores] == [0, credit]

    @pytest.mark.parametrize("given", [{"balance_abs_threshold": 4}, {"balance_rel_threshold": 1.5}])
    def test_an_open_gate_sends_to_the_least_loaded(self, given):
        policy = self.policy(**given)
        request = RouteRequest(self.TEXT[:900], 225)
        assert choose(policy, request, fleet(100, 3)).reason == "balance"
        assert choose(policy, request, fleet(100, 3)).worker == "http://w1:80"
        assert choose(policy, request, fleet(4, 3)).worker == "http://w0:80"

    def test_without_the_flags_the_cost_decides(self):
        assert choose(self.policy(), RouteRequest(self.TEXT[:900], 225), fleet(100, 3)).worker == "http://w0:80"
