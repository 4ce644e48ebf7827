"""Random lives of a scheduler whose prefix cache spills to the host: few texts, many beginnings, little room."""

import os
from functools import partial

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.cache.host_tree import WRITE_POLICIES, HostSettings
from tests.backend.scheduler.harness import Harness

CONTEXT = 48
TEXTS = [[1 + (i * i // (salt + 2) + salt) % 3 for i in range(CONTEXT)] for salt in range(3)]


def prompt(text, length, tail):
    """The beginning of one of the texts, and something of its own."""
    return TEXTS[text][:length] + tail


PROMPT = st.builds(prompt, st.integers(0, 2), st.integers(20, 40), st.lists(st.integers(1, 3), max_size=2))
ASK = st.tuples(st.just("ask"), PROMPT)
ADD = st.tuples(st.just("add"), PROMPT, st.integers(0, 6), st.sampled_from(["", "", "salt"]), st.integers(0, 3))
EVENT = st.one_of(
    ASK,
    ASK,
    ASK,
    ADD,
    ADD,
    st.tuples(st.just("run")),
    st.tuples(st.just("step"), st.integers(1, 3)),
    st.tuples(st.just("abort"), st.integers(1, 20)),
)
LIMITS = st.fixed_dictionaries(
    {
        "max_running_requests": st.integers(1, 4),
        "prefill_budget": st.sampled_from([3, 16, 64]),
        "overlap": st.booleans(),
        "late": st.booleans(),
        "eviction": st.sampled_from(["lru", "lfu", "priority"]),
        "conservativeness": st.sampled_from([0.0, 1.0]),
    }
)
HOST = st.builds(
    partial(HostSettings, load_min=1), st.integers(1, 30) | st.integers(30, 200), st.sampled_from(list(WRITE_POLICIES))
)


@settings(max_examples=int(os.environ.get("WARMLANE_FUZZ_EPISODES", "200")), deadline=None)
@given(
    limits=LIMITS,
    host=HOST,
    page=st.sampled_from([1, 2, 4, 16]),
    room=st.integers(0, 30),
    events=st.lists(EVENT, min_size=16, max_size=40),
)
def test_random_lives_over_two_tiers(limits, host, page, room, events):
    pages = -(-CONTEXT // page) + room // page
    harness = Harness(**limits, host=host, page_size=page, num_pages=pages, context_length=CONTEXT)
    for event in events:
        match event:
            case ("add", tokens, max_new, namespace, priority):
                fits = min(max_new, CONTEXT - len(tokens))
                harness.add(tokens, max_new=fits, namespace=namespace, stop_ids=(), priority=priority)
            case ("ask", tokens):
                harness.add(tokens, max_new=1, stop_ids=())
                harness.run()
            case ("abort", uid):
                if uid in harness.asked:
                    harness.abort(uid)
            case ("run",):
                harness.run()
            case ("step", count):
                for _ in range(count):
                    harness.step()
    harness.run()
    harness.check_answers()
    assert harness.flush()
    stats = harness.scheduler.stats
    note(f"retracted: {stats.retracted_total > 0}")
    note(f"cached: {stats.cached_prompt_tokens_total > 0}")
    note(f"from host: {bool(harness.fetched)}, {host.write_policy}")
    assert stats.loaded_tokens_total >= sum(harness.fetched.values())
