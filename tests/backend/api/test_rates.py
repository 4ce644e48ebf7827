"""Throughput over the last seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.api.rates import RecentRate


def test_a_steady_stream_and_then_silence() -> None:
    rate = RecentRate(seconds=10)
    for tick in range(1, 301):
        rate.record(total=tick * 2.0, now=tick / 10)
    assert rate.value(30.0) == pytest.approx(20.0, rel=0.02)
    assert rate.value(35.0) == pytest.approx(10.0, rel=0.03)
    assert rate.value(41.0) == 0.0


def test_nothing_recorded_is_no_rate() -> None:
    assert RecentRate().value(100.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), max_size=60), st.floats(0, 15))
def test_it_counts_what_came_within_the_window(steps: list[tuple[float, int]], wait: float) -> None:
    rate = RecentRate(seconds=10, step=0.1)
    now, total, history = 0.0, 0, []
    for gap, count in steps:
        now, total = now + gap, total + count
        history.append((now, count))
        rate.record(total, now)
    now += wait
    surely = sum(count for at, count in history if at > now - 10 + 0.1)
    perhaps = sum(count for at, count in history if at > now - 10 - 1e-6)
    assert surely - 1e-6 <= rate.value(now) * 10 <= perhaps + 1e-6
