"""Random lives of a scheduler whose window layers have pages of their own: answers are right, pages are counted."""

import os

import numpy as np
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.cache.events import BlockEvents, BlockRemoved, CacheLog, chain_hash, root_hash
from backend.scheduler.window import WindowSettings
from tests.backend.scheduler.harness import Harness
from tests.backend.scheduler.test_fuzz import EVENT, LIMITS, live

CONTEXT = 48
WINDOW = st.tuples(st.integers(1, 20), st.integers(0, 40))


@settings(max_examples=int(os.environ.get("WARMLANE_FUZZ_EPISODES", "300")), deadline=None)
@given(
    limits=LIMITS,
    window=WINDOW,
    room=st.integers(0, 40),
    events=st.lists(EVENT, min_size=8, max_size=40),
)
def test_random_lives_with_a_window(limits, window, room, events):
    page, (tokens, more) = limits["page_size"], window
    least = WindowSettings.least_pages(tokens, limits["prefill_budget"], page)
    settings = WindowSettings(tokens, least + more // page, limits["prefill_budget"])
    pages = -(-CONTEXT // page) + room // page
    harness = Harness(**limits | {"host": None}, window=settings, num_pages=pages, context_length=CONTEXT)
    live(harness, events)
    assert not [finish for finish in harness.finished.values() if finish is not None and finish.kind == "abort"]
    harness.check_answers()
    assert harness.flush()
    stats = harness.scheduler.stats
    note(f"cached: {stats.cached_prompt_tokens_total > 0}")
    note(f"retracted: {stats.retracted_total > 0}")
    note(f"room for fewer than all rows: {settings.num_pages < least * limits['max_running_requests']}")


def run_one(harness, prompt, **options):
    harness.begin()
    harness.add(prompt, **options)
    harness.run()
    harness.check_answers()
    return harness.cached[1]


def text(length, salt=0):
    return [1 + (i * i // 3 + salt * i) % 7 for i in range(length)]


def make(window=8, num_pages=30, page_size=2, budget=8, **limits):
    settings = WindowSettings(window, num_pages, budget)
    return Harness(
        window=settings, prefill_budget=budget, num_pages=200, page_size=page_size, context_length=200, **limits
    )


def test_a_long_row_holds_its_window_only():
    harness = make(num_pages=WindowSettings.least_pages(8, 8, 2))
    harness.add(text(120), max_new=40, stop_ids=())
    most = 0
    while harness.scheduler.has_work:
        stats = harness.step().stats
        shared = harness.scheduler.rows.window.shared
        most = max(most, np.count_nonzero(shared.readers))
        assert stats.window_used_tokens == 2 * np.count_nonzero(shared.readers)
    harness.check_answers()
    assert stats.window_total_tokens == 2 * shared.num_pages >= stats.window_cached_tokens > 0
    assert 0 < most <= 4 + 1 + 4 + 1  # window, the page being filled, a step's tokens, and where they begin


def test_a_prefix_is_used_up_to_where_its_window_is_there():
    harness = make(num_pages=14)
    assert run_one(harness, text(40), max_new=1) == 0
    assert run_one(harness, [*text(40), 9, 9], max_new=1) == 40  # the end
    assert run_one(harness, [*text(31), 8, 8], max_new=1) < 31  # its inside has been given to later tokens
    assert run_one(harness, [*text(40), 9, 9], max_new=1) == 42 - 2  # again


def test_a_lost_window_heals_when_it_is_computed_again():
    harness = make(num_pages=14)
    run_one(harness, text(40), max_new=1)
    for salt in (3, 4, 5):  # they take the pages
        run_one(harness, text(60, salt), max_new=1)
    assert run_one(harness, [*text(40), 9], max_new=1) < 40
    assert run_one(harness, [*text(40), 9], max_new=1) == 40


def test_what_lost_its_window_is_told_to_be_gone():
    harness = make(num_pages=14)
    rows, told = harness.scheduler.rows, set()
    rows.radix.log, blocks = CacheLog(), BlockEvents(2)
    for salt in (0, 3, 4, 5):  # each takes the window's pages of the one before
        run_one(harness, text(40, salt), max_new=1)
        for event in blocks.events(rows.radix.log.take()):
            told = told - {*event.block_hashes} if isinstance(event, BlockRemoved) else told | {*event.block_hashes}
    for salt in (0, 3, 4, 5):
        chain, known = root_hash(""), 0
        for start in range(0, 40, 2):
            chain = chain_hash(chain, np.array(text(40, salt)[start : start + 2], np.int32))
            known += 2 * (chain in told)
        assert known == rows.radix.matched_tokens(np.array(text(40, salt), np.int32))
    assert rows.evicted_pages > 0


def test_ends_outlive_what_lies_within():
    harness = make(num_pages=18)
    run_one(harness, text(60), max_new=1)
    run_one(harness, text(60, salt=3), max_new=1)
    assert run_one(harness, [*text(60), 9], max_new=1) == 60


def test_rows_that_outgrow_the_pool_are_retracted_and_come_back():
    harness = make(num_pages=WindowSettings.least_pages(8, 8, 2) + 6, max_running_requests=4, conservativeness=0.0)
    harness.add(*(text(4, salt) for salt in range(4)), max_new=20, stop_ids=())
    most = 0
    while harness.scheduler.has_work:
        harness.step()
        most = max(most, len(harness.scheduler.slots.running()))
    harness.check_answers()
    assert most > 12 // 6  # of the pool's 12 pages for rows, one beyond its window holds up to 6
    assert harness.scheduler.stats.retracted_total > 0


def test_rows_wait_for_room():
    harness = make(num_pages=WindowSettings.least_pages(8, 8, 2) + 6, max_running_requests=4, conservativeness=1.0)
    harness.add(*(text(30, salt) for salt in range(4)), max_new=20, stop_ids=())
    for _ in range(10):
        harness.step()
    assert len(harness.scheduler.slots.running()) < 4
    harness.run()
    harness.check_answers()
