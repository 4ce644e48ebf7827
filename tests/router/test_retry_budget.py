"""The retry budget against a list of everything that happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.retry_budget import FLOOR, WINDOW, RetryBudget

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["request", "retry", "fall"]), st.integers(0, 4), st.sampled_from("ab"), st.integers(1, 9)
    ),
    max_size=60,
)


@given(EVENTS)
def test_it_allows_what_the_history_says(events):
    budget, now = RetryBudget(), 0
    requests: list[int] = []
    falls: dict[str, tuple[int, int]] = {}
    retries: list[int] = []
    for kind, wait, worker, count in events:
        now += wait
        if kind == "request":
            for _ in range(100 * count):
                budget.request(now)
            requests += [now] * 100 * count
        elif kind == "fall":
            budget.failed(worker, count, now)
            if worker not in falls or now - falls[worker][0] >= WINDOW:
                falls[worker] = (now, count)
        else:
            spent = sum(now - at < WINDOW for at in retries)
            traffic = sum(now - at < WINDOW for at in requests)
            extra = sum(held for began, held in falls.values() if now - began < WINDOW)
            expected = spent < max(traffic // 10, FLOOR) + extra
            assert budget.take(now) == expected
            retries += [now] * expected


def test_the_floor_holds_without_traffic():
    budget = RetryBudget()
    assert [budget.take(5.0) for _ in range(FLOOR + 1)] == [True] * FLOOR + [False]
    assert budget.take(5.0 + WINDOW)


def test_everything_in_flight_on_a_fallen_worker_may_be_repeated():
    budget = RetryBudget()
    for in_flight in range(500, 0, -1):
        budget.failed("w", in_flight, 1.0)
    assert sum(budget.take(1.0) for _ in range(1000)) == FLOOR + 500


def test_a_worker_that_keeps_failing_adds_nothing_more():
    budget = RetryBudget()
    for now in range(9):
        budget.failed("w", 50, now)
    assert budget.allowed(8.0) == FLOOR + 50
