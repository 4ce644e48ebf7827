"""Timers: moved later for nothing, and late ones blame nobody."""

from __future__ import annotations

import heapq
import itertools

from hypothesis import given
from hypothesis import strategies as st

from router.http.deadline import LATE_SECONDS, NEVER, Deadline


class Loop:
    """An event loop whose clock is set by hand."""

    def __init__(self):
        self.now = 0.0
        self._timers = []
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, at, callback):
        timer = Timer(callback)
        heapq.heappush(self._timers, (at, next(self._count), timer))
        return timer

    def run_until(self, now: float) -> None:
        """Nothing happens before: then all timers that are due go off, at that time."""
        self.now = now
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].fire()


class Timer:
    def __init__(self, callback):
        self._callback = callback

    def cancel(self):
        self._callback = lambda: None

    def fire(self):
        self._callback()


def watched() -> tuple[Loop, Deadline, list[float]]:
    loop, expired = Loop(), []
    return loop, Deadline(loop, lambda: expired.append(loop.now)), expired


def test_it_expires_once_when_its_time_has_come():
    loop, deadline, expired = watched()
    deadline.set(1.0)
    loop.run_until(0.99)
    loop.run_until(1.01)
    loop.run_until(5.0)
    assert expired == [1.01]


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, LATE_SECONDS / 2)), max_size=30))
def test_it_expires_at_the_time_that_was_set_last(moves):
    loop, deadline, expired = watched()
    at = NEVER
    for ahead, step in moves:
        at = loop.now + ahead
        deadline.set(at)
        loop.run_until(loop.now + step)
        if at <= loop.now:
            assert expired.pop() == loop.now
            at = NEVER
        assert expired == []


def test_who_was_held_up_itself_reads_first_what_came_meanwhile():
    loop, deadline, expired = watched()
    deadline.set(1.0)
    loop.run_until(3.0)  # two seconds late: an answer may have come
    assert expired == []
    loop.run_until(3.01)
    assert expired == []
    loop.run_until(3.0 + LATE_SECONDS)
    assert expired == [3.0 + LATE_SECONDS]


def test_it_is_excused_once():
    loop, deadline, expired = watched()
    deadline.set(1.0)
    loop.run_until(3.0)
    loop.run_until(9.0)
    assert expired == [9.0]


def test_an_answer_that_was_waiting_moves_the_deadline():
    loop, deadline, expired = watched()
    deadline.set(1.0)
    loop.run_until(3.0)
    deadline.set(NEVER)
    loop.run_until(100.0)
    assert expired == []
