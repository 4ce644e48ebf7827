"""Learned prefill speeds."""

from __future__ import annotations

import random

import pytest

from policies import RateBook, WorkerLoad, WorkerSpeed
from policies.cost.line import SLOWEST

IDLE = WorkerLoad()


def teach(rates, worker, ms_per_token, count, rng=None):
    rng = rng or random.Random(0)
    for _ in range(count):
        own, ahead = rng.randint(100, 4000), rng.choice([0, 0, 2000])
        noise = rng.uniform(0.8, 1.25)
        rates.observe(worker, own, WorkerLoad(prefill_tokens=ahead), (own + ahead) * ms_per_token * noise)


def test_unequal_workers_are_told_apart():
    rates = RateBook()
    teach(rates, "slow", 0.2, 30)
    teach(rates, "fast", 0.1, 30)
    assert rates.speed("slow").prefill_ms_per_token == pytest.approx(0.2, rel=0.1)
    assert rates.speed("fast").prefill_ms_per_token == pytest.approx(0.1, rel=0.1)


def test_nothing_known_means_the_default_then_the_median_of_the_fleet():
    rates = RateBook(WorkerSpeed(prefill_ms_per_token=0.5))
    assert rates.speed("new").prefill_ms_per_token == 0.5
    for worker, speed in (("a", 1.0), ("b", 2.0), ("c", 30.0)):
        for _ in range(5):
            rates.observe(worker, 1000, IDLE, 1000 * speed)
    assert rates.speed("new").prefill_ms_per_token == pytest.approx(2.0)


def test_a_worker_that_slows_down_is_followed():
    rates = RateBook()
    teach(rates, "a", 0.1, 50)
    teach(rates, "a", 0.4, 60)
    assert rates.speed("a").prefill_ms_per_token == pytest.approx(0.4, rel=0.15)


def test_one_stall_does_not_spoil_the_estimate():
    rates = RateBook()
    teach(rates, "a", 0.1, 50)
    rates.observe("a", 2000, IDLE, 600_000)
    assert rates.speed("a").prefill_ms_per_token < 0.2


def test_short_prompts_teach_nothing():
    rates = RateBook(WorkerSpeed(prefill_ms_per_token=0.5))
    for _ in range(20):
        rates.observe("a", 5, IDLE, 900.0)
    assert rates.speed("a").prefill_ms_per_token == 0.5


def test_running_decodes_are_not_taken_for_prefill():
    rates = RateBook(WorkerSpeed(prefill_ms_per_token=0.1, decode_ms_per_step=2.0))
    for _ in range(10):
        rates.observe("a", 1000, WorkerLoad(decodes=25), 150.0)
    assert rates.speed("a") == WorkerSpeed(pytest.approx(0.1), pytest.approx(2.0))


def test_decodes_weigh_more_on_a_slower_worker():
    rates = RateBook(WorkerSpeed(prefill_ms_per_token=0.1, decode_ms_per_step=1.0))
    for _ in range(10):
        rates.observe("cpu", 200, IDLE, 400.0)
    assert rates.speed("cpu") == WorkerSpeed(pytest.approx(2.0), pytest.approx(20.0))


def test_speeds_stay_within_bounds_and_can_be_forgotten():
    rates = RateBook()
    for _ in range(5):
        rates.observe("a", 100, IDLE, 1e12)
    assert rates.speed("a").prefill_ms_per_token == pytest.approx(SLOWEST)
    rates.forget("a")
    assert rates.speed("a") == WorkerSpeed()


def test_what_a_worker_says_of_its_speed_counts_until_it_has_shown_it():
    rates = RateBook()
    for worker in "abc":
        teach(rates, worker, 0.1, 20)
    rates.seed("new", 0.02)
    rates.seed("a", 7.0)
    assert rates.speed("new").prefill_ms_per_token == pytest.approx(0.02)
    assert rates.speed("a").prefill_ms_per_token == pytest.approx(0.1, rel=0.1)
    assert not rates.known("new")
    assert rates.tokens_in("new", 100.0, 0) is None
    teach(rates, "new", 0.4, 30)
    assert rates.speed("new").prefill_ms_per_token == pytest.approx(0.4, rel=0.1)


def test_a_worker_that_says_it_is_slow_gets_a_chance_to_show_that_it_is_not():
    """What it measured may have been its first prompt, while kernels were compiled."""
    rates = RateBook()
    for _ in range(10):
        rates.observe("a", 1000, IDLE, 100.0, now=0.0)
    rates.seed("b", 25.0, now=0.0)
    assert rates.speed("b", 1.0).prefill_ms_per_token == 25.0
    assert rates.speed("b", 3.0).prefill_ms_per_token == pytest.approx(0.1)
    for at in (3.0, 4.0, 5.0):
        rates.observe("b", 1000, IDLE, 100.0, now=at)
    assert rates.speed("b").prefill_ms_per_token == pytest.approx(0.1)


def test_in_a_fleet_that_only_says_its_speeds_the_next_worker_is_taken_for_a_usual_one():
    rates = RateBook()
    for worker, speed in (("a", 0.1), ("b", 0.2), ("c", 3.0)):
        rates.seed(worker, speed)
    assert rates.speed("d").prefill_ms_per_token == pytest.approx(0.2)
    teach(rates, "a", 0.1, 3)
    assert rates.speed("a").prefill_ms_per_token == pytest.approx(0.1, rel=0.2)


def ill_and_well() -> RateBook:
    """Three workers, of which "a" was a hundred times slower than the others at second 10."""
    rates = RateBook()
    for worker, speed in (("a", 10.0), ("b", 0.1), ("c", 0.1)):
        for _ in range(10):
            rates.observe(worker, 1000, IDLE, 1000 * speed, now=10.0)
    return rates


def test_a_slower_worker_that_is_not_asked_any_more_gets_a_second_chance_when_idle():
    rates = ill_and_well()
    assert rates.speed("a", 11.0).prefill_ms_per_token == pytest.approx(10.0, rel=0.05)
    assert rates.speed("a", 12.0).prefill_ms_per_token == pytest.approx(0.1)
    assert rates.speed("a").prefill_ms_per_token == pytest.approx(10.0, rel=0.05)
    assert rates.speed("b", 99.0).prefill_ms_per_token == pytest.approx(0.1)


def test_one_that_is_still_slow_waits_for_the_next_chance_and_one_that_is_well_is_as_the_others():
    rates = ill_and_well()
    rates.observe("a", 1000, IDLE, 10_000.0, now=13.0)
    assert rates.speed("a", 15.9).prefill_ms_per_token == pytest.approx(10.0, rel=0.05)
    assert rates.speed("a", 16.0).prefill_ms_per_token == pytest.approx(0.1)
    rates.observe("a", 1000, IDLE, 100.0, now=16.0)
    assert rates.speed("a", 16.0).prefill_ms_per_token == pytest.approx(0.1)


def test_three_times_that_seem_to_fall_with_the_work_do_not_make_a_worker_endlessly_fast():
    """A request of a busy moment, told as a short one: nobody is a thousand times faster for it."""
    rates = RateBook()
    for worker in "abcdefgh":
        teach(rates, worker, 0.2, 30)
    for work, ttft_ms in ((1500, 330.0), (1000, 380.0), (500, 420.0)):
        rates.observe("new", work, IDLE, ttft_ms)
    assert rates.known("new")
    assert rates.speed("new").prefill_ms_per_token > 0.02
    assert rates.speed("a").prefill_ms_per_token == pytest.approx(0.2, rel=0.1)


def test_a_second_chance_in_a_large_fleet_is_not_that_of_the_luckiest():
    """Hundreds of idle workers are due for one; a few of them always look fast."""
    rng, rates = random.Random(1), RateBook()
    for worker in range(200):
        ms_per_token = 0.02 if worker < 4 else 0.1
        for _ in range(30):
            work = rng.randint(200, 4000)
            rates.observe(str(worker), work, IDLE, work * ms_per_token * rng.lognormvariate(0, 0.1), now=0.0)
    assert rates.speed("0", 99.0).prefill_ms_per_token < 0.04
    speeds = [rates.speed(str(worker), 99.0).prefill_ms_per_token for worker in range(4, 200)]
    assert min(speeds) > 0.07


def test_workers_that_differ_by_no_more_than_their_times_vary_count_as_equal():
    rng, rates = random.Random(1), RateBook()
    for _ in range(40):
        for worker in "abcdefgh":
            work = rng.randint(200, 4000)
            rates.observe(worker, work, IDLE, work * 0.1 * rng.lognormvariate(0, 0.5))
    speeds = [rates.speed(worker).prefill_ms_per_token for worker in "abcdefgh"]
    assert max(speeds) / min(speeds) < 1.05


def test_one_fast_worker_among_noisy_equal_ones_is_found():
    rng, rates = random.Random(1), RateBook()
    for _ in range(40):
        for worker in "abcd":
            work = rng.randint(200, 4000)
            ms_per_token = 0.05 if worker == "a" else 0.1
            rates.observe(worker, work, IDLE, work * ms_per_token * rng.lognormvariate(0, 0.2))
    assert rates.speed("b").prefill_ms_per_token / rates.speed("a").prefill_ms_per_token > 1.7
