"""Who is asked when, and whom it takes to call a worker silent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.silence import Depth, Silence, Wait


class Watched(Silence):
    """A silence that remembers who was given up."""

    def __init__(self, after: float = 1.0) -> None:
        super().__init__(after)
        self.lost: list[str] = []

    def send(self, name: str, now: float, worker: str = "w", patience: float | None = None) -> Wait:
        return self.begin(worker, now, patience, lambda: self.lost.append(name))


def test_a_worker_is_asked_once_its_first_byte_is_late_and_not_before():
    silence = Watched()
    silence.send("a", 0)
    assert silence.due(0.9) == []
    assert silence.due(1) == [("w", Depth.HEALTH)]
    assert silence.due(1) == []


def test_two_unanswered_questions_make_it_silent():
    silence = Watched()
    silence.send("a", 0)
    silence.due(1)
    assert silence.told("w", False, 2) == []
    assert silence.due(2) == [("w", Depth.HEALTH)]
    silence.told("w", False, 3)
    assert silence.lost == ["a"]
    assert silence.due(100) == []


def test_a_question_that_the_router_could_not_attend_to_proves_nothing():
    """A strike stays, none is added, and the worker is asked again at once."""
    silence = Watched()
    silence.send("a", 0)
    silence.due(1)
    silence.told("w", False, 2)
    for second in range(2, 6):
        assert silence.due(second) == [("w", Depth.HEALTH)]
        assert silence.told("w", None, second + 0.5) == []
    assert silence.lost == []
    silence.due(6)
    silence.told("w", False, 7)
    assert silence.lost == ["a"]


def test_a_slow_worker_that_answers_its_probes_is_waited_for_without_end():
    silence = Watched()
    silence.send("a", 0)
    for now in range(1, 1000):
        silence.due(now)
        silence.told("w", True, now)
    assert silence.lost == []


def test_a_first_byte_for_somebody_else_is_a_sign_of_life():
    silence = Watched()
    silence.send("a", 0)
    other = silence.send("b", 0)
    silence.due(1)
    silence.told("w", False, 2)
    silence.end(other, answered=True)
    silence.due(2)
    silence.told("w", False, 3)
    assert silence.lost == []


def test_who_came_after_the_last_question_waits_for_one_more():
    silence = Watched()
    silence.send("a", 0)
    silence.due(1)
    silence.send("late", 1.5)
    silence.told("w", False, 2)
    silence.due(2)
    silence.send("later", 2.5)
    silence.told("w", False, 3)
    assert silence.lost == ["a", "late"]
    assert silence.due(3.5) == [("w", Depth.HEALTH)]
    silence.told("w", False, 4.5)
    assert silence.lost == ["a", "late", "later"]


def test_beyond_its_patience_a_request_asks_for_a_token():
    silence = Watched()
    silence.send("a", 0, patience=5.0)
    silence.send("patient", 0)
    assert silence.due(1) == [("w", Depth.HEALTH)]
    silence.told("w", True, 1)
    assert silence.due(5) == [("w", Depth.GENERATE)]
    silence.told("w", False, 6)
    silence.due(6)
    silence.told("w", False, 7)
    assert silence.lost == ["a"]


def test_a_request_that_left_is_not_given_up_later():
    silence = Watched()
    wait = silence.send("a", 0)
    silence.due(1)
    silence.told("w", False, 2)
    silence.due(2)
    silence.end(wait, answered=False)
    silence.told("w", False, 3)
    silence.end(wait, answered=True)
    assert silence.lost == []


@given(
    st.lists(st.tuples(st.sampled_from(["send", "end", "due", "yes", "no", "forget"]), st.integers(0, 30)), max_size=80)
)
def test_nothing_stays_behind_and_nobody_is_given_up_twice(steps):
    silence, open_waits, now, sent = Watched(), {}, 0.0, 0
    for what, number in steps:
        now += number / 10
        if what == "send":
            sent += 1
            open_waits[str(sent)] = silence.send(str(sent), now, worker="ab"[number % 2])
        elif what == "end" and open_waits:
            name = list(open_waits)[number % len(open_waits)]
            silence.end(open_waits.pop(name), answered=bool(number % 3))
        elif what == "due":
            silence.due(now)
        elif what in ("yes", "no"):
            silence.told("ab"[number % 2], what == "yes", now)
        elif what == "forget":
            silence.forget("ab"[number % 2])
    assert len(silence.lost) == len(set(silence.lost))
    for wait in open_waits.values():
        silence.end(wait, answered=True)
    for worker in "ab":
        silence.told(worker, True, now)
    assert silence.due(now + 1000) == []
