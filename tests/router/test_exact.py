"""Exact prefixes through the whole router: what engines publish decides, as far as it can be compared."""

import asyncio
from array import array
from contextlib import ExitStack, asynccontextmanager

import numpy as np
import pytest

from backend.cache.events import CacheLog
from backend.flags.kv_events import KVEventsConfig
from backend.scheduler.kv_publisher import KVPublisher
from policies.prefix.block_index import PromptKey, chain_of
from router.body import Facts, Form
from router.exact import prompt_key
from router.namespace import joined
from router.tokenise import INLINE_IDS, TokenPool
from tests.router.conftest import running, until
from tests.router.fake_backend import FakeBackend

PAGE = 4
IDS = list(range(100, 180))


class Engine:
    """A fake backend's cache: what it publishes is up to the test."""

    def __init__(self):
        self.log = CacheLog()
        self.publisher = KVPublisher(KVEventsConfig(endpoint="tcp://127.0.0.1:*"), self.log, PAGE)
        info = {"endpoint": self.publisher.endpoint, "replay_endpoint": self.publisher.replay_endpoint, "topic": ""}
        info["block_size"] = PAGE
        self.backend = FakeBackend(server_info={"kv_events": info, "max_total_num_tokens": 10_000})
        self._pages = 0

    def store(self, ids, namespace=""):
        pages = len(ids) // PAGE
        first, self._pages = self._pages + 1, self._pages + pages
        pages_of = np.arange(first, first + pages, dtype=np.int32)
        self.log.stored(None, np.array(ids[: pages * PAGE], np.int32), pages_of, namespace)
        self.publisher.publish()

    def clear(self):
        self.log.cleared()
        self.publisher.publish()


@asynccontextmanager
async def exact_fleet(count=2, **settings):
    with ExitStack() as stack:
        engines = [Engine() for _ in range(count)]
        for engine in engines:
            stack.callback(engine.publisher.close)
        async with running(*(engine.backend for engine in engines), **settings) as fleet:
            fleet.engines = engines

            async def known(blocks):
                """Wait until the router knows so many blocks of each engine."""
                urls = [backend.url for backend in fleet.backends]
                await until(lambda: all(fleet.metric("warmlane_kv_exact", worker=url) for url in urls))
                await until(lambda: [fleet.metric("warmlane_kv_blocks", worker=url) for url in urls] == blocks)

            fleet.known = known
            yield fleet


async def generate(fleet, ids, name="x", **fields):
    headers = {"X-Request-Id": name}
    body = {"input_ids": ids, "prompt": "for the fake cache", **fields}
    async with fleet.client.post("/generate", json=body, headers=headers) as answer:
        assert answer.status == 200
        await answer.read()
    async with fleet.client.get(f"/router/explain/{name}") as answer:
        return await answer.json()


async def test_a_router_without_a_tokenizer_waits_for_the_tokens_of_ids_only():
    async with exact_fleet() as fleet:
        await fleet.known([0, 0])
        placement = fleet.router.placement
        wanted = {form for form in Form if placement.needs_tokens(Facts(form=form))}
        assert wanted == {Form.IDS}


async def test_the_worker_that_says_it_holds_the_prompt_gets_it():
    async with exact_fleet() as fleet:
        fleet.engines[1].store(IDS)
        await fleet.known([0, 20])
        told = await generate(fleet, IDS)
        [attempt] = told["attempts"]
        assert attempt["worker"] == fleet.backends[1].url
        assert attempt["predicted_cached_tokens"] == len(IDS) - PAGE  # the last token is always computed
        assert told["exact_tokens"]
        assert all(row["exact"] for row in attempt["candidates"])


async def test_a_cache_that_was_cleared_is_known_to_be_empty():
    async with exact_fleet() as fleet:
        fleet.engines[1].store(IDS)
        await fleet.known([0, 20])
        await generate(fleet, IDS)
        fleet.engines[1].clear()
        fleet.engines[0].store(IDS[:40])
        await fleet.known([10, 0])
        [attempt] = (await generate(fleet, IDS, name="again"))["attempts"]
        cached = {row["worker"]: row["cached_tokens"] for row in attempt["candidates"]}
        # The router itself sent the prompt to the second one, which says that nothing is left of it.
        assert cached == {fleet.backends[0].url: 40, fleet.backends[1].url: 0}


async def test_nothing_anywhere_is_exact_knowledge_too():
    async with exact_fleet() as fleet:
        fleet.engines[1].store(IDS)
        await fleet.known([0, 20])
        await generate(fleet, IDS)
        fleet.engines[1].clear()
        await fleet.known([0, 0])
        [attempt] = (await generate(fleet, IDS, name="again"))["attempts"]
        assert [row["exact"] for row in attempt["candidates"]] == [True, True]
        assert attempt["predicted_cached_tokens"] == 0


async def test_salted_prompts_share_nothing():
    async with exact_fleet() as fleet:
        fleet.engines[0].store(IDS, "4:salt")
        await fleet.known([20, 0])
        plain = (await generate(fleet, IDS, name="plain"))["attempts"][0]
        salted = (await generate(fleet, IDS, name="salted", cache_salt="salt"))["attempts"][0]
        assert plain["predicted_cached_tokens"] == 0
        assert salted["predicted_cached_tokens"] == len(IDS) - PAGE
        assert salted["worker"] == fleet.backends[0].url


async def test_siblings_of_a_burst_join_the_first():
    async with exact_fleet() as fleet:
        await fleet.known([0, 0])
        for backend in fleet.backends:
            backend.may_answer.clear()
        asked = [asyncio.create_task(generate(fleet, IDS, name=str(n))) for n in range(2)]
        await until(lambda: sum(backend.running for backend in fleet.backends) == 2)
        for backend in fleet.backends:
            backend.may_answer.set()
        first, second = [told["attempts"][0] for told in await asyncio.gather(*asked)]
        later = max(first, second, key=lambda attempt: attempt["predicted_cached_tokens"])
        assert later["predicted_cached_tokens"] == len(IDS) - PAGE
        assert first["worker"] == second["worker"]
        assert fleet.leases() == 0


async def test_workers_say_how_far_they_are_known():
    async with exact_fleet() as fleet:
        await fleet.known([0, 0])
        async with fleet.client.get("/workers") as answer:
            workers = (await answer.json())["workers"]
        assert {worker["kv_events"] for worker in workers} == {"exact"}
        assert {worker["token_parity"] for worker in workers} == {"text"}  # this router has no tokenizer


async def test_a_text_is_not_compared_with_tokens_that_nobody_vouched_for():
    async with exact_fleet() as fleet:
        fleet.engines[0].store(IDS)
        await fleet.known([20, 0])
        async with fleet.client.post("/generate", json={"text": "hello"}, headers={"X-Request-Id": "t"}) as answer:
            await answer.read()
        async with fleet.client.get("/router/explain/t") as answer:
            told = await answer.json()
        assert not told["exact_tokens"]
        assert not any(row["exact"] for row in told["attempts"][0]["candidates"])


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        ("", PromptKey()),
        (joined(["lora", "", ""]), PromptKey("lora")),
        (joined(["", "salt", ""]), PromptKey("", ("salt",))),
        (joined(["lora", "salt", "extra"]), PromptKey("lora", ("salt", "extra"))),
        (joined(["", "", "extra"]), PromptKey("", ("", "extra"))),
    ],
)
def test_the_key_of_a_namespace(namespace, key):
    assert prompt_key(namespace) == key


async def test_tokens_are_worked_out_off_the_loop():
    pool = TokenPool(lambda text, special: [int(special), *text.encode()])
    key = PromptKey()
    ids = array("i", range(INLINE_IDS)).tobytes()
    try:
        chat, plain = [await pool.of_text(b"hello", special, [2], key) for special in (False, True)]
        assert (chat.length, plain.length) == (6, 6)
        assert chat.chains != plain.chains
        assert (await pool.of_ids(ids, [16], key)).chains == {16: chain_of(ids, 16, key)}
        assert await pool.of_text(b"\xff", False, [2], key) is None
        assert pool.failed == 1
        assert await TokenPool(None).of_text(b"hello", False, [2], key) is None
    finally:
        pool.close()
