"""Leases: the load of a worker is the sum of what its open leases add, whatever the order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from policies import LeaseBook, WorkerLoad

WORKERS = ["a", "b"]


def total(loads):
    loads = list(loads)
    return WorkerLoad(
        sum(load.requests for load in loads),
        sum(load.prefill_tokens for load in loads),
        sum(load.decodes for load in loads),
    )


class LeasesAddUp(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.book = LeaseBook()
        self.counted = []  # leases of workers that were not forgotten since
        self.now = 0.0

    @rule(target=leases, worker=st.sampled_from(WORKERS), tokens=st.integers(0, 5000))
    def open(self, worker, tokens):
        self.now += 0.5
        lease = self.book.open(worker, tokens, self.now)
        self.counted.append(lease)
        return lease

    @rule(lease=leases)
    def first_token(self, lease):
        self.now += 0.5
        lease.first_token(self.now)

    @rule(lease=leases)
    def release(self, lease):
        lease.release()
        assert not lease.release()
        assert lease.load == WorkerLoad()

    @rule(worker=st.sampled_from(WORKERS))
    def forget(self, worker):
        self.book.forget(worker)
        self.counted = [lease for lease in self.counted if lease.worker != worker]

    @invariant()
    def sum_is_load(self):
        for worker in WORKERS:
            assert self.book.load(worker) == total(lease.load for lease in self.counted if lease.worker == worker)


LeasesAddUp.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_leases_add_up = LeasesAddUp.TestCase


def test_the_first_token_is_told_once_in_milliseconds():
    lease = LeaseBook().open("a", 100, now=2.0)
    assert lease.first_token(2.25) == 250.0
    assert lease.first_token(3.0) is None


def test_a_late_first_token_does_not_reopen_a_released_lease():
    book = LeaseBook()
    lease = book.open("a", 100, now=0.0)
    assert lease.release()
    assert lease.first_token(1.0) is None
    assert book.load("a") == WorkerLoad()


def test_a_worker_that_comes_back_is_not_charged_for_its_former_life():
    book = LeaseBook()
    old = book.open("a", 100, now=0.0)
    book.forget("a")
    book.open("a", 7, now=1.0)
    old.release()
    assert book.load("a") == WorkerLoad(requests=1, prefill_tokens=7)


def test_finished_work_is_remembered_and_fades_by_halves():
    book = LeaseBook(recent_half_life_s=10.0)
    book.open("a", 800, now=0.0).release()
    assert book.load("a", now=0.0).recent_tokens == 800
    assert book.load("a", now=10.0).recent_tokens == pytest.approx(400)
    book.open("a", 100, now=20.0).release()
    assert book.load("a", now=20.0).recent_tokens == pytest.approx(300)
    assert book.load("a", now=20.0).requests == 0


def test_a_clock_that_stands_still_or_steps_back_adds_no_work():
    book = LeaseBook()
    book.open("a", 100, now=5.0)
    assert book.load("a", now=4.0).recent_tokens == 100


def test_negative_tokens_are_refused():
    with pytest.raises(ValueError, match="got -1"):
        LeaseBook().open("a", -1, now=0.0)
