"""The shared array and the leases that write it: whatever happens, each process sees its own work and the others'."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.cost.leases import LeaseBook
from router.processes.shared_leases import FRESH_SECONDS, SharedLeases
from router.processes.shared_load import SLOTS, Load, SharedLoads, Slots

WORKERS = ("a", "b")


def books(processes: int) -> tuple[SharedLoads, list[SharedLeases]]:
    shared = SharedLoads(processes)
    made = [SharedLeases(SharedLoads(processes, shared.descriptor), index) for index in range(processes)]
    for book in made:
        for slot, worker in enumerate(WORKERS):
            book.place(worker, slot)
    return shared, made


STEP = st.tuples(
    st.sampled_from(["open", "open", "first_token", "release"]),
    st.integers(0, 2),
    st.sampled_from(WORKERS),
    st.integers(0, 5000),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=40))
def test_every_process_sees_what_one_book_of_all_would_show(steps):
    shared, processes = books(3)
    whole = LeaseBook()
    leases, now = [], 0.0
    for what, process, worker, number in steps:
        now += 1.0
        if what == "open":
            leases.append((processes[process].open(worker, number, now), whole.open(worker, number, now)))
        elif leases:
            for lease in leases[number % len(leases)]:
                lease.first_token(now) if what == "first_token" else lease.release()
    now += 1.0
    for slot, worker in enumerate(WORKERS):
        expected = whole.load(worker, now)
        assert shared.total(slot)[:3] == (expected.requests, expected.prefill_tokens, expected.decodes)
        for book in processes:
            seen = book.load(worker, now)
            assert seen.requests == expected.requests
            assert seen.prefill_tokens + seen.others_tokens == expected.prefill_tokens
            assert seen.running == expected.decodes
            assert seen.recent_tokens == pytest.approx(expected.recent_tokens)
        assert sum(book.load(worker).requests for book in processes) == expected.requests
    for pair in leases:
        for lease in pair:
            lease.release()
    assert [shared.total(slot)[:3] for slot in range(len(WORKERS))] == [(0, 0, 0)] * len(WORKERS)


def test_the_row_of_a_process_that_died_is_cleared():
    shared, (one, other) = books(2)
    one.open("a", 100, 1.0)
    other.open("a", 10, 1.0)
    shared.clear(0)
    assert shared.total(0) == Load(1, 10, 0, 10.0)
    assert other.load("a", 2.0).others_tokens == 0


def test_a_worker_that_went_leaves_nothing_to_the_next_one_in_its_slot():
    shared, (one, other) = books(2)
    lease = one.open("a", 100, 1.0)
    one.forget("a")
    one.place("c", 0)
    lease.release()
    assert shared.total(0) == Load()
    assert other.load("a", 2.0).requests == 0


def test_others_are_read_again_after_a_moment():
    _, (one, other) = books(2)
    assert one.load("a", 1.0).requests == 0
    other.open("a", 7, 1.0)
    assert one.load("a", 1.0 + 2 * FRESH_SECONDS).others_tokens == 7


def test_a_worker_without_a_slot_is_counted_by_each_process_alone():
    _shared, (one, other) = books(2)
    one.place("many", -1)
    one.open("many", 5, 1.0)
    assert one.load("many", 2.0).requests == 1
    assert other.load("many", 2.0).requests == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_no_two_workers_have_one_slot(steps):
    slots, there = Slots(), {}
    for comes, number in steps:
        url = str(number)
        if comes and url not in there:
            there[url] = slots.take(url)
        elif not comes:
            there.pop(url, None)
            slots.give_back(url)
        assert len(set(there.values())) == len(there)
        assert {url: slots.of(url) for url in there} == there
        assert all(slot < 21 for slot in there.values())


def test_there_are_no_more_slots_than_the_array_has():
    slots = Slots()
    taken = [slots.take(str(number)) for number in range(SLOTS + 1)]
    assert taken[-2:] == [SLOTS - 1, -1]
    slots.give_back("0")
    assert slots.take("late") == 0
