"""Random lives of a scheduler: whatever happens, answers are the model's and every page has one owner."""

import os

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.cache.host_tree import WRITE_POLICIES, HostSettings
from tests.backend.scheduler.fake_runner import STOP
from tests.backend.scheduler.harness import Harness

PROMPT = st.lists(st.integers(1, 2), min_size=1, max_size=20)
EVENT = st.one_of(
    st.tuples(
        st.just("add"), PROMPT, st.integers(0, 12), st.sampled_from(["", "salt"]), st.booleans(), st.integers(0, 3)
    ),
    st.tuples(st.just("abort"), st.integers(0, 30)),
    st.tuples(st.just("step"), st.integers(1, 4)),
)
LOAD_MIN = st.sampled_from([1, 4])
LIMITS = st.fixed_dictionaries(
    {
        "max_running_requests": st.integers(1, 5),
        "num_pages": st.integers(4, 40),
        "page_size": st.sampled_from([1, 2, 4]),
        "prefill_budget": st.integers(1, 24),
        "radix_cache": st.booleans(),
        "conservativeness": st.sampled_from([0.0, 0.3, 1.0]),
        "overlap": st.booleans(),
        "late": st.booleans(),
        "eviction": st.sampled_from(["lru", "lfu", "priority"]),
        "schedule_policy": st.sampled_from(["fcfs", "lpm", "dfs-weight", "random", "priority"]),
        "host": st.none()
        | st.builds(HostSettings, st.integers(1, 40), st.sampled_from(list(WRITE_POLICIES)), LOAD_MIN),
    }
)


@settings(max_examples=int(os.environ.get("WARMLANE_FUZZ_EPISODES", "300")), deadline=None)
@given(limits=LIMITS, preemption_threshold=st.sampled_from([None, 0, 1]), events=st.lists(EVENT, max_size=30))
def test_random_lives(limits, preemption_threshold, events):
    if limits["schedule_policy"] == "priority":  # preemption needs an order that serves the preemptor first
        limits = limits | {"preemption_threshold": preemption_threshold}
    context = min(40, limits["num_pages"] * limits["page_size"])
    harness = Harness(**limits, context_length=context)
    for event in events:
        match event:
            case ("add", prompt, max_new, namespace, stops, priority):
                if len(prompt) < context:
                    fits = min(max_new, context - len(prompt))
                    stop_ids = (STOP,) if stops else ()
                    harness.add(prompt, max_new=fits, namespace=namespace, stop_ids=stop_ids, priority=priority)
            case ("abort", uid):
                if uid in harness.asked:
                    harness.abort(uid)
            case ("step", count):
                for _ in range(count):
                    harness.step()
    harness.run()
    assert not [finish for finish in harness.finished.values() if finish is not None and finish.kind == "abort"]
    harness.check_answers()
    stats = harness.scheduler.stats
    note(f"retracted: {stats.retracted_total > 0}")
    note(f"evicted: {stats.evicted_tokens_total > 0}")
    note(f"cached: {stats.cached_prompt_tokens_total > 0}")
    note(f"from host: {bool(harness.fetched)}, with host: {limits['host'] is not None}")
    note(f"overlap: {limits['overlap']}, late: {limits['late']}")
