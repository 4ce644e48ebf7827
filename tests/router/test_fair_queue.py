"""The queue of waiting requests: bounded, and fair between keys."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from router.fair_queue import FairQueue

KEYS = st.sampled_from("abc")


def always(_item: object) -> bool:
    return True


def test_keys_take_turns_however_many_one_of_them_has():
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.push(item[0], item)
    assert [queue.pop(always) for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_who_is_not_ready_is_passed_over_and_keeps_its_place():
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "b1"):
        queue.push(item[0], item)
    assert queue.pop(lambda item: item != "a1") == "a2"
    assert queue.pop(lambda item: item == "c1") is None
    assert [queue.pop(always), queue.pop(always)] == ["b1", "a1"]


def test_when_full_the_longest_lane_gives_way_to_a_shorter_one():
    queue: FairQueue[str] = FairQueue(3)
    for item in ("a1", "a2", "a3"):
        queue.push("a", item)
    assert queue.push("a", "a4") == (False, None)
    assert queue.push("b", "b1") == (True, "a3")
    assert queue.push("b", "b2") == (False, None)
    assert FairQueue(0).push("a", "x") == (False, None)


@given(st.integers(0, 5), st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), KEYS, st.integers(0, 30))))
def test_it_holds_what_was_pushed_and_not_taken(size, steps):
    queue: FairQueue[int] = FairQueue(size)
    inside: dict[int, str] = {}
    for number, (what, key, pick) in enumerate(steps):
        if what == "push":
            taken, displaced = queue.push(key, number)
            if displaced is not None:
                lengths = Counter(inside.values())
                assert lengths[inside.pop(displaced)] == max(lengths.values())
            if taken:
                inside[number] = key
            assert taken or len(inside) == size
        elif what == "pop":
            item = queue.pop(lambda item, pick=pick: item >= pick)
            assert (item is None) == all(one < pick for one in inside)
            if item is not None:
                assert item == min(one for one in inside if inside[one] == inside[item] and one >= pick)
                del inside[item]
        else:
            queue.remove(key, pick)
            if inside.get(pick) == key:
                del inside[pick]
        assert len(queue) == len(inside) <= size
