"""Who gets what moves: the sink while the handler waits, else the handler; nothing twice, nothing lost, in order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.frontend.errors import RequestError
from backend.frontend.generation import Generation
from backend.frontend.request import FinishReason, RequestState
from backend.sampling_params import SamplingParams

END = FinishReason("length")


def request(uid: int) -> RequestState:
    return RequestState(uid=uid, rid="r", index=uid, prompt_ids=[1], sampling=SamplingParams(), created=0.0)


def generation(count: int = 1) -> Generation:
    return Generation([request(uid) for uid in range(count)], lambda _: None)


def move(call: Generation, uid: int, token: int, finish: FinishReason | None = None) -> None:
    state = call.states[uid]
    state.output_ids.append(token)
    state.finish = finish
    call.notify(state)
    call.deliver()


async def turn() -> None:
    """Let the handler run until it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


class Reader:
    """A handler that leaves a sink behind; both note what is new in each request, and who saw it."""

    def __init__(self, call: Generation) -> None:
        self.call = call
        self.seen: dict[int, list[int]] = {state.uid: [] for state in call.states}
        self.by_sink: list[int] = []
        self.declines = False

    def look(self, moved: list[RequestState]) -> list[int]:
        fresh = [token for state in moved for token in state.output_ids[len(self.seen[state.uid]) :]]
        for state in moved:
            self.seen[state.uid] = list(state.output_ids)
        return fresh

    def sink(self, moved: list[RequestState]) -> bool:
        if not self.declines:
            self.by_sink += self.look(moved)
        return not self.declines

    async def run(self) -> None:
        async with self.call:
            async for moved in self.call:
                self.look(moved)
                self.call.pass_on(self.sink)


async def test_the_sink_gets_what_comes_while_the_handler_waits_and_the_handler_what_ends() -> None:
    reader = Reader(generation())
    task = asyncio.create_task(reader.run())
    await turn()
    move(reader.call, 0, 1)
    move(reader.call, 0, 2)  # the handler is awake: no sink now
    await turn()
    move(reader.call, 0, 3)
    reader.declines = True
    move(reader.call, 0, 4)
    reader.declines = False
    move(reader.call, 0, 5)  # comes behind 4, which waits for the handler
    await turn()
    move(reader.call, 0, 6)
    move(reader.call, 0, 7, END)
    await task
    assert reader.by_sink == [3, 6]
    assert reader.seen == {0: [1, 2, 3, 4, 5, 6, 7]}


async def test_an_error_of_the_sink_is_the_handlers() -> None:
    call = generation()

    def broken(_: list[RequestState]) -> bool:
        raise RequestError("cannot be told")

    async def handle() -> None:
        async for _ in call:
            call.pass_on(broken)

    task = asyncio.create_task(handle())
    await turn()
    move(call, 0, 1)
    await turn()
    move(call, 0, 2)  # nothing is raised here
    with pytest.raises(RequestError, match="cannot be told"):
        await task


async def test_a_request_that_ends_in_error_ends_the_call_behind_a_sink() -> None:
    reader = Reader(generation(2))
    task = asyncio.create_task(reader.run())
    await turn()
    move(reader.call, 0, 1)
    await turn()
    move(reader.call, 1, 2)
    reader.call.states[0].finish = FinishReason("abort", message="too late", status_code=503)
    reader.call.notify(reader.call.states[0])
    reader.call.deliver()
    with pytest.raises(RequestError, match="too late"):
        await task
    assert reader.by_sink == [2]


EVENTS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["token", "turn", "decline", "accept"])), max_size=60)


@given(EVENTS)
def test_every_token_is_seen_once_and_in_order(events: list[tuple[int, str]]) -> None:
    async def play() -> None:
        reader = Reader(generation(3))
        task = asyncio.create_task(reader.run())
        for token, (uid, what) in enumerate(events):
            if what == "token":
                move(reader.call, uid, token)
            elif what == "turn":
                await turn()
            else:
                reader.declines = what == "decline"
        for uid in range(3):
            move(reader.call, uid, -1, END)
        await task
        assert reader.seen == {state.uid: state.output_ids for state in reader.call.states}

    asyncio.run(play())
