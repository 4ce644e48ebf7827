"""Limits and rates: what is let in, who waits, who is turned away and with which words."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.admission import Admission, Ticket
from router.config import AdmissionSettings
from router.errors import Refusal
from router.rate_limit import Bucket


class Gate(Admission):
    """An admission with a clock that stands still until a test moves it, and a list of what was shed."""

    def __init__(self, **limits) -> None:
        self.now = 0.0
        self.reasons: list[str] = []
        super().__init__(AdmissionSettings(**limits), lambda: self.now, self.reasons.append)

    async def refused(self, key: str = "", tokens: int = 1) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.enter(key, tokens)
        return caught.value


async def turn() -> None:
    """Let everybody who can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_run_than_allowed_and_a_place_that_is_freed_goes_to_the_first_in_line():
    gate = Gate(requests=2)
    first, _second = await gate.enter("", 1), await gate.enter("", 1)
    third, fourth = (asyncio.create_task(gate.enter("", 1)) for _ in range(2))
    await turn()
    assert (gate.running, gate.waiting) == (2, 2)
    first.release()
    first.release()
    await turn()
    assert (third.done(), fourth.done(), gate.running, gate.waiting) == (True, False, 2, 1)
    third.result().release()
    (await fourth).release()


async def test_a_key_that_asks_for_much_delays_no_other():
    gate = Gate(requests=1)
    running = await gate.enter("greedy", 1)
    order: list[str] = []

    async def visit(key: str) -> None:
        ticket = await gate.enter(key, 1)
        order.append(key)
        ticket.release()

    tasks = [asyncio.create_task(visit(key)) for key in ["greedy"] * 3 + ["modest"]]
    await turn()
    running.release()
    await asyncio.gather(*tasks)
    assert order == ["greedy", "modest", "greedy", "greedy"]


async def test_a_keys_own_limit_holds_back_that_key_only():
    gate = Gate(requests_per_key=1)
    await gate.enter("a", 1)
    second = asyncio.create_task(gate.enter("a", 1))
    await turn()
    assert not second.done()
    await gate.enter("b", 1)
    second.cancel()


async def test_a_full_line_answers_429_and_a_wait_that_is_too_long_503():
    gate = Gate(requests=1, queue_size=1, queue_timeout=0.01)
    await gate.enter("", 1)
    waiting = asyncio.create_task(gate.enter("", 1))
    await turn()
    refusal = await gate.refused()
    assert (refusal.status, refusal.code, refusal.retry_after) == (429, "queue_full", 1)
    with pytest.raises(Refusal) as late:
        await waiting
    assert (late.value.status, late.value.code, late.value.retry_after) == (503, "queue_timeout", 1)
    assert gate.reasons == ["queue_full", "queue_timeout"]
    assert (gate.running, gate.waiting) == (1, 0)


async def test_who_leaves_the_line_just_as_it_is_let_in_takes_no_place_along():
    gate = Gate(requests=1)
    first = await gate.enter("", 1)
    waiting = asyncio.create_task(gate.enter("", 1))
    await turn()
    first.release()
    waiting.cancel()
    await turn()
    assert waiting.cancelled()
    assert gate.running == 0


@pytest.mark.parametrize(
    ("limits", "keys", "reason"),
    [
        ({"request_rate": 2}, ["a", "b", "c"], "rate_requests"),
        ({"token_rate": 20}, ["a", "b", "c"], "rate_tokens"),
        ({"request_rate_per_key": 2}, ["a", "b", "a", "a"], "key_rate_requests"),
        ({"token_rate_per_key": 20}, ["a", "b", "a", "a"], "key_rate_tokens"),
    ],
)
async def test_beyond_a_rate_the_answer_is_429_with_the_time_until_the_next(limits, keys, reason):
    gate = Gate(**limits)
    for key in keys[:-1]:
        await gate.enter(key, 10)
    refusal = await gate.refused(keys[-1], 10)
    assert (refusal.status, refusal.code, refusal.retry_after) == (429, reason, 1)
    assert gate.reasons == [reason]
    gate.now = 1.0
    await gate.enter(keys[-1], 10)


async def test_a_request_that_one_rate_refuses_is_not_charged_to_another():
    gate = Gate(request_rate=2, token_rate_per_key=10)
    await gate.enter("a", 10)
    assert (await gate.refused("a", 10)).code == "key_rate_tokens"
    await gate.enter("b", 10)
    assert (await gate.refused("c", 10)).code == "rate_requests"


async def test_places_at_workers_are_counted_and_waited_for():
    gate = Gate(requests_per_worker=1)
    ticket = await gate.enter("", 1)

    def take() -> bool:
        if not gate.has_room("w", None):
            return False
        gate.sent("w")
        return True

    await gate.wait_for_worker(ticket, take, lambda: gate.done("w"))
    assert not gate.has_room("w", None)
    assert gate.has_room("w", 2)
    second = asyncio.create_task(gate.wait_for_worker(ticket, take, lambda: gate.done("w")))
    await turn()
    assert not second.done()
    gate.done("w")
    await second
    assert not gate.has_room("w", None)


@given(st.floats(0.5, 50), st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 100)), max_size=40))
def test_a_bucket_lets_no_more_through_than_its_rate_and_one_last_cost(rate, steps):
    bucket, now, taken, largest = Bucket(rate, 0.0), 0.0, 0.0, 0.0
    for pause, cost in steps:
        now += pause
        if not bucket.wait(cost, now):
            bucket.take(cost, now)
            taken, largest = taken + cost, max(largest, cost)
        else:
            assert bucket.wait(cost, now + bucket.wait(cost, now) + 1e-6) == 0
    assert taken <= rate * now + max(rate, 1) + largest + 1e-6


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["enter", "release", "leave"]), st.sampled_from("abc"), st.integers(0, 9))))
def test_whatever_comes_and_goes_no_limit_is_exceeded_and_nothing_is_left_behind(steps):
    asyncio.run(play(steps))


async def play(steps: list[tuple[str, str, int]]) -> None:
    gate = Gate(requests=3, requests_per_key=2, queue_size=4)
    tasks: list[tuple[str, asyncio.Task[Ticket]]] = []

    def inside() -> list[tuple[str, Ticket]]:
        done = [(key, task) for key, task in tasks if task.done() and not task.cancelled() and not task.exception()]
        return [(key, task.result()) for key, task in done]

    for what, key, pick in steps:
        if what == "enter":
            tasks.append((key, asyncio.create_task(gate.enter(key, 1))))
        elif tasks:
            which = tasks[pick % len(tasks)]
            if what == "leave":
                which[1].cancel()
            elif which in [(key, task) for key, task in tasks if task.done()]:
                tasks.remove(which)
                if not which[1].cancelled() and not which[1].exception():
                    which[1].result().release()
        if pick % 2:
            await turn()
            held = Counter(key for key, _ in inside())
            assert gate.running == sum(held.values()) <= 3
            assert all(count <= 2 for count in held.values())
    for _, task in tasks:
        task.cancel()
    await turn()
    for _, ticket in inside():
        ticket.release()
    assert (gate.running, gate.waiting) == (0, 0)
