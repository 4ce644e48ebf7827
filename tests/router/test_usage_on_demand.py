"""``--request-usage`` through the whole router: backends are asked, clients see their own stream."""

import json

import aiohttp
import pytest

from tests.router.conftest import chat, running
from tests.router.fake_backend import FakeBackend, Fault

CHAT = "/v1/chat/completions"


async def stream(fleet, **fields):
    async with fleet.client.post(CHAT, json=chat("hello there", stream=True, **fields)) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_streams_tell_their_cached_tokens_without_the_client_seeing_it():
    async with running(FakeBackend(tells="usage"), request_usage=True) as fleet:
        given = await stream(fleet)
        body = json.loads(fleet.backends[0].received[-1].body)
        assert body.pop("stream_options") == {"include_usage": True}
        assert body == chat("hello there", stream=True)
        assert fleet.metric("warmlane_answers_total", told="yes") == 1
    events = given.split(b"\n\n")
    assert [json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events[:3]] == [
        "tok 0", "tok 1", "tok 2",
    ]  # fmt: skip
    assert events[3:] == [b"data: [DONE]", b""]


async def test_a_client_that_asked_gets_its_usage():
    async with running(FakeBackend(tells="usage"), request_usage=True) as fleet:
        given = await stream(fleet, stream_options={"include_usage": True})
        assert b'"cached_tokens"' in given


async def test_nothing_is_touched_unless_told_to():
    async with running(FakeBackend(tells="usage")) as fleet:
        assert b'"cached_tokens"' in await stream(fleet)
        assert b"stream_options" not in fleet.backends[0].received[-1].body
        assert fleet.metric("warmlane_answers_total", told="yes") == 1


async def test_a_stream_that_is_cut_stays_cut():
    backend = FakeBackend(tells="usage", fault=Fault.CUT)
    async with running(backend, request_usage=True) as fleet:
        async with fleet.client.post(CHAT, json=chat("hi", stream=True)) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        await backend.until(lambda: backend.running == 0)
        assert fleet.leases() == 0
