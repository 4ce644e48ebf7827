"""The simulated engine: times that can be worked out by hand, and laws that hold for all traffic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sim import EngineSpec, EventKind, SimEngine, SimRequest

SPEC = EngineSpec(kv_tokens=100_000, prefill_tokens_per_s=10_000, chunk_tokens=4096, step_ms=10, sequence_ms=0.2)


def prompt(tokens, segment=0, output=1, arrival=0.0):
    return SimRequest(arrival, (segment,), (tokens,), output)


def run(spec, requests, stops=()):
    """All events; time is also advanced to each of ``stops``."""
    engine, events = SimEngine(spec), []
    moments = sorted(
        [(request.arrival, 1, number) for number, request in enumerate(requests)] + [(t, 0, -1) for t in stops]
    )
    for time, kind, number in moments:
        events += engine.advance(time)
        if kind:
            engine.submit(number, requests[number], time)
    return engine, events + engine.advance(math.inf)


def first_tokens(events):
    return {event.number: event.time for event in events if event.kind is EventKind.FIRST_TOKEN}


def ends(events):
    return {event.number: event.time for event in events if event.kind is EventKind.DONE}


def test_a_prompt_alone_takes_its_tokens():
    _, events = run(SPEC, [prompt(10_000)])
    assert first_tokens(events) == {0: pytest.approx(1.0)}


def test_a_repeated_prompt_computes_its_last_block_only():
    _, events = run(SPEC, [prompt(8000), prompt(8000, arrival=5.0)])
    assert events[-1].cached_tokens == 7984
    assert first_tokens(events)[1] == pytest.approx(5.0 + 16 / 10_000)


def test_prompts_are_computed_in_turn_and_short_ones_share_a_step():
    _, events = run(SPEC, [prompt(4096, 1), prompt(1000, 2, arrival=0.1), prompt(1000, 3, arrival=0.2)])
    assert first_tokens(events) == {0: pytest.approx(0.4096), 1: pytest.approx(0.6096), 2: pytest.approx(0.6096)}


def test_answers_take_a_step_a_token_and_slow_prompts_down():
    alone = ends(run(SPEC, [prompt(1000, output=11)])[1])[0]
    assert alone == pytest.approx(0.1 + 10 * 0.0102)
    late = first_tokens(run(SPEC, [prompt(1000, 1, output=1000), prompt(4096, 2, arrival=1.0)])[1])[1]
    assert 1.0 + 0.4096 + 0.0102 <= late <= 1.0 + 0.4096 + 2 * 0.0102


def test_without_room_a_request_waits_for_an_end():
    small = EngineSpec(kv_tokens=2048, prefill_tokens_per_s=10_000)
    _, events = run(small, [prompt(1000, 1, output=500), prompt(1000, 2, output=500)])
    assert first_tokens(events)[1] > ends(events)[0]


def test_a_request_that_can_never_fit_is_refused():
    with pytest.raises(ValueError, match="100001 tokens does not fit into 100000"):
        SimEngine(SPEC).submit(0, prompt(100_000), 0.0)


def test_a_flush_loses_the_cache_but_no_request():
    engine = SimEngine(SPEC)
    engine.submit(0, prompt(8000, output=50), 0.0)
    engine.submit(1, prompt(9000, 1), 0.0)
    engine.advance(0.85)
    engine.flush()
    assert engine.cached_tokens(prompt(8000)) == 0
    events = engine.advance(math.inf)
    assert ends(events).keys() == {0, 1}
    engine.submit(2, prompt(9000, 1), 10.0)
    assert engine.advance(math.inf)[0].cached_tokens == 8992


requests = st.lists(
    st.tuples(st.floats(0, 3), st.integers(0, 6), st.integers(1, 3000), st.integers(1, 60)), min_size=1, max_size=20
).map(
    lambda rows: [
        SimRequest(arrival, (segment, 100 + number), (1000, tokens), output)
        for number, (arrival, segment, tokens, output) in enumerate(sorted(rows))
    ]
)
TIGHT = EngineSpec(kv_tokens=8192, prefill_tokens_per_s=10_000, chunk_tokens=1024)


@given(requests, st.lists(st.floats(0, 5), max_size=10))
def test_looking_in_between_changes_nothing(traffic, stops):
    _, once = run(TIGHT, traffic)
    _, often = run(TIGHT, traffic, stops)
    assert [(event.kind, event.number, event.cached_tokens) for event in once] == [
        (event.kind, event.number, event.cached_tokens) for event in often
    ]
    assert [event.time for event in once] == pytest.approx([event.time for event in often])


@given(requests)
def test_every_request_is_answered_once_and_leaves_nothing(traffic):
    engine, events = run(TIGHT, traffic)
    started, ended = first_tokens(events), ends(events)
    assert started.keys() == ended.keys() == set(range(len(traffic)))
    assert len(events) == 2 * len(traffic)
    assert [event.time for event in events] == sorted(event.time for event in events)
    for number, request in enumerate(traffic):
        assert started[number] >= request.arrival + 1 / TIGHT.prefill_tokens_per_s
        steps = request.output_tokens - 1
        assert ended[number] >= started[number] + steps * TIGHT.step_ms / 1000 - 1e-9
    assert (engine.requests, engine.backlog, engine.next_time) == (0, 0, math.inf)


@given(requests)
def test_no_work_is_lost_or_made(traffic):
    """Computed prompt tokens take their time: the engine is never faster than its speed."""
    _, events = run(TIGHT, traffic)
    cached = {event.number: event.cached_tokens for event in events}
    work = sum(request.prompt_tokens - cached[number] for number, request in enumerate(traffic))
    assert max(first_tokens(events).values()) >= traffic[0].arrival + work / TIGHT.prefill_tokens_per_s - 1e-9
