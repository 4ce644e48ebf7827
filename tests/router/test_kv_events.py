"""KV events over real sockets: learning a cache, closing gaps, noticing that an engine started over."""

import asyncio
import time
from array import array
from contextlib import asynccontextmanager

import msgspec
import pytest
import zmq
import zmq.asyncio
from prometheus_client import CollectorRegistry

from policies.prefix.block_index import BlockIndex, PromptKey, Source, chain_of
from router.fleet.kv_events import KVEvents
from router.fleet.kv_sources import KVSource, sources
from router.fleet.kv_stream import END, Position, Verdict
from router.fleet.worker import Health, Worker, WorkerSpec

URL = "http://127.0.0.1:9"


class Engine:
    """Publishes by hand: any number, any content. ``ring`` is what a replay gives."""

    def __init__(self, context, replay=True):
        self.context = context
        self.pub = context.socket(zmq.PUB)
        self.pub.bind("tcp://127.0.0.1:*")
        self.router = context.socket(zmq.ROUTER) if replay else None
        if self.router is not None:
            self.router.bind("tcp://127.0.0.1:*")
        self.ring = []
        self.asked = []
        self.next = 0

    def info(self):
        def at(socket):
            return socket and socket.getsockopt_string(zmq.LAST_ENDPOINT)

        return {"kv_events": {"endpoint": at(self.pub), "replay_endpoint": at(self.router), "topic": ""}}

    def batch(self, *events):
        payload = msgspec.msgpack.encode([time.time(), list(events)])
        number, self.next = self.next, self.next + 1
        self.ring.append((number, payload))
        return number, payload

    async def send(self, number, payload):
        await self.pub.send_multipart([b"", number.to_bytes(8, "big"), payload])

    async def publish(self, *events):
        await self.send(*self.batch(*events))

    async def serve(self):
        while True:
            identity, empty, first = await self.router.recv_multipart()
            self.asked.append(int.from_bytes(first, "big"))
            for number, payload in self.ring:
                if number >= self.asked[-1]:
                    await self.router.send_multipart([identity, empty, number.to_bytes(8, "big"), payload])
            await self.router.send_multipart([identity, empty, END, b""])


def stored(token, parent=None):
    return ["BlockStored", [token], parent, [token], 1, None]


class Info:
    """A worker's /server_info."""

    def __init__(self, info):
        self.info = info

    async def fetch(self, worker, method, path, timeout, body=None):
        return (200, msgspec.json.encode(self.info)) if path == "/server_info" else (404, b"")


@asynccontextmanager
async def following(replay=True):
    """An engine that serves replays, and the router's side of it, which watches nobody yet."""
    context = zmq.asyncio.Context()
    engine = Engine(context, replay)
    serving = asyncio.create_task(engine.serve()) if replay else None
    registry = CollectorRegistry()
    events = KVEvents(Info(engine.info()), BlockIndex(2**20), registry)
    worker = Worker(WorkerSpec(url=URL), health=Health.HEALTHY)
    events.count = lambda name: registry.get_sample_value(f"warmlane_kv_event_{name}_total")
    try:
        yield engine, events, worker
    finally:
        await events.close()
        if serving is not None:
            serving.cancel()
        context.destroy(linger=0)


def held(events, *tokens):
    chain = chain_of(array("i", [*tokens, 0]).tobytes(), 1, PromptKey())
    found = events.index.match({1: chain}).get(URL)
    return found.tokens if found else 0


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def connect(engine, events, worker):
    """Watch, and go on when live batches arrive: the engine repeats a batch that changes nothing until one does."""
    events.watch(worker)
    await until(lambda: events.state(URL) != "none")
    [stream] = events._streams[URL]
    while stream.lag == 0.0:
        await engine.publish(["BlockRemoved", [10**9]])
        await asyncio.sleep(0.005)


async def test_what_was_published_before_the_router_came_is_replayed():
    async with following() as (engine, events, worker):
        engine.batch(stored(1))
        engine.batch(stored(2, 1))
        events.watch(worker)
        await until(lambda: held(events, 1, 2) == 2)
        await until(lambda: events.exact(URL))
        assert events.state(URL) == "exact"


async def test_an_engine_that_has_said_nothing_holds_nothing():
    async with following() as (_engine, events, worker):
        events.watch(worker)
        await until(lambda: events.exact(URL))
        assert events.index.held(Source(URL)) == 0


async def test_a_chunk_of_single_token_pages_is_one_batch():
    """As SGLang tells a chunk of thousands of tokens with its usual page size."""
    chunk = range(1, 5001)
    async with following() as (engine, events, worker):
        engine.batch(*[stored(token, token - 1 or None) for token in chunk])
        engine.batch(["BlockRemoved", [5000]])
        events.watch(worker)
        await until(lambda: events.exact(URL) and held(events, *chunk) == 4999)


async def test_live_batches_follow():
    async with following() as (engine, events, worker):
        await connect(engine, events, worker)
        await engine.publish(stored(1), stored(2, 1))
        await engine.publish(["BlockRemoved", [2]])
        await until(lambda: held(events, 1, 2) == 1)
        assert events.count("gaps") == 0
        rows = {name: value for name, _, labels, value in events.rows() if labels}
        assert (rows["warmlane_kv_blocks"], rows["warmlane_kv_exact"]) == (1, 1)


async def test_a_gap_is_closed_by_a_replay():
    async with following() as (engine, events, worker):
        await connect(engine, events, worker)
        engine.batch(stored(1))  # lost on its way
        await engine.publish(stored(2, 1))
        await until(lambda: held(events, 1, 2) == 2)
        assert (events.count("gaps"), events.count("resyncs")) == (1, 0)
        assert events.exact(URL)


async def test_a_gap_that_cannot_be_closed_means_learning_anew():
    async with following() as (engine, events, worker):
        await connect(engine, events, worker)
        await engine.publish(stored(1))
        await until(lambda: held(events, 1) == 1)
        engine.batch(["BlockRemoved", [1]])
        engine.ring.clear()
        await engine.publish(stored(5))
        await until(lambda: held(events, 5) == 1)
        assert held(events, 1) == 0
        assert events.count("resyncs") == 1
        assert not events.exact(URL)  # it may hold more than is known
        await engine.publish(["AllBlocksCleared"], stored(6))
        await until(lambda: events.exact(URL))
        assert (held(events, 5), held(events, 6)) == (0, 1)


async def test_numbers_that_start_over_mean_another_engine():
    async with following() as (engine, events, worker):
        await connect(engine, events, worker)
        await engine.publish(stored(1))
        await until(lambda: held(events, 1) == 1)
        engine.ring.clear()
        engine.next = 0
        await engine.publish(stored(7))
        await until(lambda: held(events, 7) == 1)
        assert held(events, 1) == 0
        assert events.exact(URL)  # from the beginning


async def test_another_engine_that_is_further_already_is_no_gap():
    """Its first batches were not heard: those of the same numbers are of the engine before it."""
    async with following() as (engine, events, worker):
        await connect(engine, events, worker)
        await engine.publish(stored(7))
        await until(lambda: held(events, 7))
        further = engine.next + 2
        engine.ring, engine.next = [], 0
        for token in range(20, 20 + further):
            last = engine.batch(stored(token))
        await engine.send(*last)
        await until(lambda: held(events, 20 + further - 1))
        assert [held(events, token) for token in (7, 20, 21)] == [0, 1, 1]
        assert events.exact(URL)


async def test_without_replay_the_middle_of_a_stream_is_only_part():
    async with following(replay=False) as (engine, events, worker):
        engine.next = 5
        await connect(engine, events, worker)
        await engine.publish(stored(1))
        await until(lambda: held(events, 1) == 1)
        assert events.state(URL) == "partial"


async def test_a_cache_that_does_not_fit_is_not_taken_for_known(caplog):
    """Else what found no room would count as not cached, and the texts would not be asked."""
    async with following() as (engine, events, worker):
        await connect(engine, events, worker)
        assert events.state(URL) == "exact"
        events.index.budget_bytes = events.index.used_bytes + 100
        await engine.publish(stored(1), stored(2, 1), stored(3, 2))
        await until(lambda: events.index.refused)
        assert events.state(URL) == "partial"
        assert "--prefix-index-bytes" in caplog.text
        await engine.publish(["AllBlocksCleared"])
        await until(lambda: events.exact(URL))


async def test_a_worker_that_goes_takes_its_blocks_along():
    async with following() as (engine, events, worker):
        engine.batch(stored(1))
        events.watch(worker)
        await until(lambda: held(events, 1) == 1)
        events.unwatch(worker)
        assert held(events, 1) == 0
        assert events.state(URL) == "none"


async def test_a_restart_is_followed_to_new_ports():
    async with following() as (engine, events, worker):
        engine.batch(stored(1))
        events.watch(worker)
        await until(lambda: held(events, 1) == 1)
        other = Engine(engine.context)
        serving = asyncio.create_task(other.serve())
        other.batch(stored(2))
        events._fetcher.info = other.info()
        events.restarted(worker)
        await until(lambda: held(events, 2) == 1)
        assert held(events, 1) == 0
        serving.cancel()


async def test_garbage_is_counted_and_survived():
    async with following() as (engine, events, worker):
        await connect(engine, events, worker)
        await engine.pub.send_multipart([b"", b"short", b"x"])
        await engine.send(engine.next, b"garbage")
        await until(lambda: events._bad._value.get() == 1)
        assert not events.exact(URL)
        await engine.publish(["AllBlocksCleared"], stored(3))
        await until(lambda: held(events, 3) == 1)


def test_the_rules_of_numbers():
    position = Position()
    assert position.judge(7, 1.0) is Verdict.NEXT
    position.taken(7, 10.0)
    assert position.judge(8, 11.0) is Verdict.NEXT
    assert position.judge(9, 11.0) is Verdict.GAP
    assert position.judge(7, 10.0) is Verdict.OLD
    assert position.judge(0, 11.0) is Verdict.RESET


# -- where events are -------------------------------------------------------------------------------------------------

WORKER = Worker(WorkerSpec(url="http://10.0.0.7:30000"))
FLAG = '{"publisher": "zmq", "endpoint": "tcp://*:5557", "replay_endpoint": "tcp://0.0.0.0:5600", "topic": "kv"}'


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, []),
        ({"kv_events": None, "kv_events_config": None}, []),
        ({"kv_events_config": "no json"}, []),
        ({"kv_events_config": '{"publisher": "null"}'}, []),
        ({"kv_events_config": '{"enable_kv_cache_events": false, "endpoint": "tcp://*:1"}'}, []),
        ({"kv_events": {"endpoint": "tcp://*:0"}}, []),
        ({"kv_events_config": FLAG}, [KVSource("tcp://10.0.0.7:5557", "tcp://10.0.0.7:5600", "kv")]),
        ({"vllm_config": {"kv_events_config": msgspec.json.decode(FLAG)}},
         [KVSource("tcp://10.0.0.7:5557", "tcp://10.0.0.7:5600", "kv")]),
        ({"kv_events": {"endpoint": "tcp://other:1", "replay_endpoint": None}}, [KVSource("tcp://other:1", None)]),
        ({"dp_size": 2, "kv_events": {"endpoint": "tcp://*:10", "replay_endpoint": "tcp://*:20"}},
         [KVSource(f"tcp://10.0.0.7:1{rank}", f"tcp://10.0.0.7:2{rank}", "", rank) for rank in range(2)]),
    ],
)  # fmt: skip
def test_where_a_worker_publishes(info, expected):
    assert sources(WORKER, info) == expected


def test_the_block_size_is_known_before_the_first_block():
    [ours] = sources(WORKER, {"kv_events": {"endpoint": "tcp://*:1", "block_size": 16}, "page_size": 1})
    [sglang] = sources(WORKER, {"kv_events_config": FLAG, "page_size": 64})
    assert (ours.block_size, sglang.block_size) == (16, 64)


def test_labels_of_the_worker_win():
    labels = {"kv_events_endpoint": "tcp://*:7", "kv_events_replay_endpoint": "tcp://*:8"}
    worker = Worker(WorkerSpec(url="http://h:1", labels=labels))
    assert sources(worker, {"kv_events_config": FLAG}) == [KVSource("tcp://h:7", "tcp://h:8")]


async def test_an_address_that_cannot_be_had_is_no_exact_cache(caplog):
    async with following() as (_engine, events, worker):
        events._fetcher.info = {"kv_events": {"endpoint": "tcp://no such host:1"}}
        events.watch(worker)
        await until(lambda: "end here" in caplog.text or "defect" in caplog.text)
        assert events.state(URL) == "partial"
        assert "defect" not in caplog.text
