"""Random lives of a scheduler: whatever happens, answers are the model's and every page has one owner.

Prompts are beginnings of few texts, room is scarce and outputs are long, so that most lives see cached prefixes,
evictions and retractions. ``make fuzz`` runs 10,000 of them and tells in what share of them each thing happened.
"""

import os

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.cache.host_tree import WRITE_POLICIES, HostSettings
from backend.messages import ToScheduler
from tests.backend.scheduler.fake_runner import STOP
from tests.backend.scheduler.harness import Harness

LONGEST = 24
TEXTS = [[1 + (i * i // (salt + 2) + salt) % 3 for i in range(LONGEST)] for salt in range(2)]


def prompt(text, length, tail):
    """The beginning of one of the texts, and something of its own."""
    return (TEXTS[text][:length] + tail) or [1]


def many(weight, strategy):
    """``strategy`` as often as ``weight`` others."""
    return [strategy] * weight


PROMPT = st.builds(prompt, st.integers(0, 1), st.integers(0, LONGEST), st.lists(st.integers(1, 2), max_size=3))
OUTPUT = st.integers(0, 6) | st.integers(10, 30)
ADD = st.tuples(st.just("add"), PROMPT, OUTPUT, st.sampled_from(["", "", "", "salt"]), st.booleans(), st.integers(0, 3))
EVENT = st.one_of(
    *many(6, ADD),
    *many(4, st.tuples(st.just("step"), st.integers(1, 6))),
    *many(2, st.tuples(st.just("abort"), st.integers(0, 6))),  # one of the last so many requests
    st.tuples(st.just("storm"), PROMPT, st.integers(2, 5), OUTPUT),
    st.tuples(st.just("run")),
    st.tuples(st.just("pause"), st.sampled_from(["in_place", "retract"]), st.integers(1, 2)),
    st.tuples(st.just("flush")),
)
HOST = st.builds(HostSettings, st.integers(1, 40), st.sampled_from(list(WRITE_POLICIES)), st.sampled_from([1, 4]))
LIMITS = st.fixed_dictionaries(
    {
        "max_running_requests": st.integers(1, 6),
        "page_size": st.sampled_from([1, 2, 4, 16]),
        "prefill_budget": st.integers(1, 24) | st.sampled_from([64]),
        "radix_cache": st.sampled_from([True, True, True, False]),
        "conservativeness": st.sampled_from([0.0, 0.0, 0.3, 1.0]),
        "decode_steps": st.sampled_from([1, 1, 3]),
        "overlap": st.booleans(),
        "late": st.booleans(),
        "eviction": st.sampled_from(["lru", "lfu", "priority"]),
        "schedule_policy": st.sampled_from(
            ["fcfs", "lpm", "dfs-weight", "random", "lof", "shortest-prefill-first", *["priority"] * 3]
        ),
        "host": st.none() | st.none() | HOST,
    }
)


def live(harness, events):
    """Let everything of ``events`` happen."""
    context = harness.limits.context_length
    for event in events:
        match event:
            case ("add", tokens, max_new, namespace, stops, priority) if len(tokens) < context:
                fits = min(max_new, context - len(tokens))
                stop_ids = (STOP,) if stops else ()
                harness.add(tokens, max_new=fits, namespace=namespace, stop_ids=stop_ids, priority=priority)
            case ("storm", tokens, count, max_new) if len(tokens) < context:
                harness.add(*[tokens] * count, max_new=min(max_new, context - len(tokens)), stop_ids=())
            case ("abort", back) if len(harness.asked) > back:
                harness.abort(len(harness.asked) - back)
            case ("step", count):
                for _ in range(count):
                    harness.step()
            case ("run",):
                harness.run()
            case ("flush",):
                harness.flush()
            case ("pause", mode, steps):
                harness.scheduler.receive(ToScheduler(pause=mode))
                for _ in range(steps):
                    harness.step()
                harness.scheduler.receive(ToScheduler(resume=True))
    harness.run()


@settings(max_examples=int(os.environ.get("WARMLANE_FUZZ_EPISODES", "300")), deadline=None)
@given(
    limits=LIMITS,
    preemption_threshold=st.sampled_from([None, 0, 1]),
    room=st.integers(0, 40),
    events=st.lists(EVENT, min_size=8, max_size=40),
)
def test_random_lives(limits, preemption_threshold, room, events):
    if limits["schedule_policy"] == "priority":  # preemption needs an order that serves the preemptor first
        limits = limits | {"preemption_threshold": preemption_threshold}
    context = 48
    pages = -(-context // limits["page_size"]) + room // limits["page_size"]
    harness = Harness(**limits, num_pages=pages, context_length=context)
    live(harness, events)
    aborted = [finish for finish in harness.finished.values() if finish is not None and finish.kind == "abort"]
    assert not aborted
    harness.check_answers()
    tell_coverage(harness, limits)


def tell_coverage(harness, limits):
    """What happened in this life, for ``--hypothesis-show-statistics``."""
    stats = harness.scheduler.stats
    preempts = limits.get("preemption_threshold") is not None
    happened = {
        "cached": stats.cached_prompt_tokens_total > 0,
        "evicted": stats.evicted_tokens_total > 0,
        "retracted": stats.retracted_total > 0,
        "retracted, where priorities preempt": stats.retracted_total > 0 and preempts,
        "aborted": None in harness.finished.values(),
        "stopped by a token": any(finish is not None and finish.kind == "stop" for finish in harness.finished.values()),
        "from the host": bool(harness.fetched),
        "overlap, late device": limits["overlap"] and limits["late"],
    }
    for name, true in happened.items():
        if true:
            note(name)
