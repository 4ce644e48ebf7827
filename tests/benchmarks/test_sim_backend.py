"""The engine over HTTP: it says and does what the engine of the replay does."""

from __future__ import annotations

import json
from random import Random

import aiohttp
import pytest

from benchmarks.placement_client import request_body
from benchmarks.placement_workloads import prompt_text
from benchmarks.sim_backend import FAST, SimBackend
from benchmarks.sim_text import Characters, Words, line
from policies.sim import EngineSpec, EventKind, SimEngine, SimRequest, simulate
from policies.sim.routing import SimRouter
from policies.sim.workloads import HotSpot, MultiTurn

SPEC = EngineSpec(kv_tokens=6000, prefill_tokens_per_s=50_000, step_ms=1.0)


class InTurn(SimRouter):
    """Engines by the number of the request."""

    def __init__(self, engines):
        self._engines = engines

    def send(self, number, request, now):
        return number % self._engines, 0


def as_text(request: SimRequest) -> SimRequest:
    """What the engine makes of the request's text."""
    return Characters().request(request.arrival, [prompt_text(request)], request.output_tokens, request.answer)


@pytest.mark.parametrize(
    ("traffic", "kv_tokens"), [(MultiTurn(conversations_per_s=4.0), 30_000), (HotSpot(system_prompts=9), 60_000)]
)
def test_prompts_read_from_text_meet_the_same_cache(traffic, kv_tokens):
    """With room for all exactly; when it is tight, a piece that ends in a block may cost or save that block."""
    requests = traffic.requests(300, 3)
    for room, off_by in ((10 * kv_tokens, 0), (kv_tokens, 16)):
        plain, read = (
            simulate(some, [SimEngine(EngineSpec(room, 4000)) for _ in range(2)], [InTurn(2)])
            for some in (requests, [as_text(request) for request in requests])
        )
        assert plain.cached.sum() > 0
        assert (read.prompt == plain.prompt).all()
        assert abs(read.cached - plain.cached).max() <= off_by
        assert (read.cached != plain.cached).mean() < 0.05
        assert read.ttft.mean() == pytest.approx(plain.ttft.mean(), rel=0.01 if off_by else 1e-9)


def chain(seed: int) -> list[SimRequest]:
    """Three conversations whose turns alternate at random, far apart in time."""
    rng = Random(seed)
    histories = {name: [(name, 300)] for name in range(3)}
    requests = []
    for number in range(12):
        history = histories[rng.randrange(3)]
        history.append((100 + number, rng.randint(20, 700)))
        output = rng.randint(2, 60)
        segments, sizes = zip(*history, strict=True)
        requests.append(SimRequest(number * 10.0, segments, sizes, output, 1000 + number))
        history.append((1000 + number, output))
    return requests


def alone(requests: list[SimRequest]) -> list[int]:
    """Cached tokens of each when one engine serves them one after the other."""
    engine, cached = SimEngine(SPEC), []
    for number, request in enumerate(requests):
        engine.submit(number, request, request.arrival)
        events = engine.advance(request.arrival + 9.0)
        assert [event.kind for event in events] == [EventKind.FIRST_TOKEN, EventKind.DONE]
        cached.append(events[0].cached_tokens)
    return cached


@pytest.mark.parametrize("seed", range(3))
async def test_over_http_it_is_the_engine_of_the_replay(seed):
    requests = chain(seed)
    backend = await SimBackend(SPEC, tokenizer=Characters(), speed=50.0, stream_interval=1000, heads=False).start()
    told, prompts = [], []
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{backend.port}") as client:
            for request in requests:
                async with client.post("/v1/completions", data=request_body(request)) as answer:
                    assert "x-warmlane-cached-tokens" not in answer.headers
                    *events, done = (await answer.read()).decode().strip().split("\n\n")
                assert done == "data: [DONE]"
                usage = json.loads(events[-1][6:])["usage"]
                told.append(usage["prompt_tokens_details"]["cached_tokens"])
                prompts.append(usage["prompt_tokens"])
                said = "".join(choice["text"] for event in events for choice in json.loads(event[6:])["choices"])
                assert said == line(request.answer, request.output_tokens * 4)
    finally:
        await backend.stop()
    assert sum(told) > 0
    assert told == alone(requests)
    assert prompts == [request.prompt_tokens for request in requests]


async def test_cached_tokens_stand_in_the_head_unless_told_otherwise():
    for heads in (True, False):
        backend = await SimBackend(FAST, heads=heads).start()
        try:
            async with (
                aiohttp.ClientSession(f"http://127.0.0.1:{backend.port}") as client,
                client.post("/v1/completions", json={"prompt": "a b c", "max_tokens": 2}) as answer,
            ):
                assert (answer.headers.get("x-warmlane-cached-tokens") == "0") is heads
                assert (await answer.json())["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        finally:
            await backend.stop()


async def test_a_chat_and_its_text_have_the_same_tokens():
    """Routers that compare tokens ask for them."""
    backend = await SimBackend(FAST, tokenizer=Characters()).start()
    messages = [{"role": "system", "content": line(1, 40)}, {"role": "user", "content": line(2, 30)}]
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{backend.port}") as client:
            asked = ({"messages": messages}, {"prompt": line(1, 40) + line(2, 30)})
            chat, plain = [await (await client.post("/tokenize", json=body)).json() for body in asked]
    finally:
        await backend.stop()
    assert chat == plain
    assert (chat["count"], len(chat["tokens"])) == (18, 18)


def test_words_and_characters_say_how_many_tokens_a_text_has():
    for tokenizer, text in ((Words(), "one two  three\nfour"), (Characters(), line(5, 4099))):
        assert "".join(tokenizer.tokens(text)) == text
        assert (
            sum(size for _, size in tokenizer.pieces(text)) == len(tokenizer.tokens(text)) == len(tokenizer.ids(text))
        )


@pytest.mark.parametrize(
    "body",
    [{"prompt": ""}, {"prompt": [1, 2]}, {"prompt": 5}, {"messages": []}, {}, [], {"prompt": "a " * 9000}],
    ids=["empty", "token ids", "a number", "of another route", "nothing", "a list", "longer than its memory"],
)
async def test_what_it_does_not_understand_is_no_fault_of_the_backend(body):
    backend = await SimBackend(SPEC).start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{backend.port}") as client:
            async with client.post("/v1/completions", json=body) as answer:
                assert answer.status == 400
                assert "does not understand" in (await answer.json())["error"]["message"]
            async with client.post("/v1/completions", json={"prompt": "a b", "max_tokens": 2}) as answer:
                assert answer.status == 200
        assert backend.engine.running == 0
    finally:
        await backend.stop()
