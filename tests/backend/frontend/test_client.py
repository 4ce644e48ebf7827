"""The frontend's socket: what the scheduler gets when one of several requests cannot be put into words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
import zmq.asyncio

from backend.frontend.client import MOST_HELD, SchedulerClient
from backend.messages import NewRequest, ProfileCommand, ToScheduler
from backend.sampling_params import SamplingParams

Pair = tuple[SchedulerClient, "zmq.Socket[bytes]"]


@pytest.fixture
async def pair(tmp_path: Path) -> Iterator[Pair]:
    """A client, and the socket from which its scheduler would read."""
    to, back = (f"ipc://{tmp_path}/{name}" for name in ("to", "from"))
    client = SchedulerClient(to, back)
    with zmq.asyncio.Context() as context, context.socket(zmq.PULL) as inbox:
        inbox.linger = 0
        inbox.connect(to)
        client.abort(0)  # until the scheduler is connected there is nobody to tell
        while not await inbox.poll(10):
            client.abort(0)
            await asyncio.sleep(0)
        while await inbox.poll(0):
            await inbox.recv()
        yield client, inbox
        client.close()


def request(uid: int, namespace: str = "") -> NewRequest:
    return NewRequest(uid, b"\1\0\0\0", SamplingParams(max_new_tokens=uid), [], namespace)


async def received(inbox: zmq.Socket[bytes]) -> ToScheduler:
    async with asyncio.timeout(10):
        return msgspec.msgpack.decode(await inbox.recv(), type=ToScheduler)


async def test_what_one_tick_brings_is_one_message(pair: Pair) -> None:
    client, inbox = pair
    client.submit([request(1), request(2)])
    client.submit([request(3)])
    client.abort(9)
    message = await received(inbox)
    assert message.new == [request(1), request(2), request(3)]
    assert message.abort == [9]


async def test_a_crowd_in_one_tick_leaves_in_parts_in_order(pair: Pair) -> None:
    client, inbox = pair
    for uid in range(2 * MOST_HELD + 3):
        client.submit([request(uid)])
    client.abort(1)
    parts = [await received(inbox) for _ in range(3)]
    assert [[each.uid for each in part.new] for part in parts] == [
        list(range(MOST_HELD)),
        list(range(MOST_HELD, 2 * MOST_HELD)),
        list(range(2 * MOST_HELD, 2 * MOST_HELD + 3)),
    ]
    assert [part.abort for part in parts] == [[], [], [1]]
    client.abort(2)
    client.submit([request(99)] * MOST_HELD)
    await asyncio.sleep(0)
    client.abort(3)
    assert [(await received(inbox)).abort for _ in range(2)] == [[2], [3]]  # and nothing empty between them


@pytest.mark.parametrize("bad", [request(2, namespace="\ud800"), request(2**64)])
async def test_a_request_that_cannot_be_encoded_fails_alone(pair: Pair, bad: NewRequest) -> None:
    client, inbox = pair
    client.submit([request(1)])
    client.abort(9)
    with pytest.raises((ValueError, OverflowError)):
        client.submit([request(4), bad])
    client.submit([request(3)])
    message = await received(inbox)
    assert [each.uid for each in message.new] == [1, 3]
    assert message.abort == [9]


@pytest.mark.parametrize("bad", [ProfileCommand("here", 2**64), ProfileCommand("here", activities=["\ud800"])])
async def test_a_command_that_cannot_be_encoded_costs_no_request(pair: Pair, bad: ProfileCommand) -> None:
    client, inbox = pair
    client.submit([request(1)])
    with pytest.raises((ValueError, OverflowError)):
        await client.profile(bad)
    assert [each.uid for each in (await received(inbox)).new] == [1]
