"""KV events over real sockets: what subscribers get, what a replay gives, and wrong settings."""

import msgspec
import numpy as np
import pytest
import zmq

from backend.cache.events import CacheLog
from backend.flags.kv_events import KVEventsConfig, parse_kv_events_config
from backend.flags.server import parse_server_args
from backend.scheduler.kv_publisher import END, KVPublisher


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def publisher():
    made = []

    def make(**fields):
        log = CacheLog()
        config = KVEventsConfig(**{"endpoint": "tcp://127.0.0.1:*", **fields})
        made.append(KVPublisher(config, log, page_size=1))
        return made[-1], log

    yield make
    for each in made:
        each.close()


def store(log, page, token, parent=None):
    log.stored(parent, np.array([token], np.int32), np.array([page], np.int32), "")


def subscribe(context, publisher, log):
    """A subscriber that is known to be connected: it has seen the first batches, which store page 1 again and again."""
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(publisher.endpoint)
    while not socket.poll(20):
        log.cleared()
        publisher.publish()
    while socket.poll(100):
        _, number, _ = socket.recv_multipart()
    return socket, int.from_bytes(number, "big")


def replay(context, publisher, first):
    socket = context.socket(zmq.DEALER)
    socket.connect(publisher.replay_endpoint)
    socket.send_multipart([b"", first.to_bytes(8, "big")])
    rows = []
    while socket.poll(10_000):
        empty, number, payload = socket.recv_multipart()
        assert empty == b""
        if number == END:
            assert payload == b""
            return rows
        rows.append((int.from_bytes(number, "big"), msgspec.msgpack.decode(payload)))
    raise AssertionError("no end mark came")


def test_subscribers_get_numbered_batches(context, publisher):
    publisher, log = publisher(topic="kv@me")
    socket, last = subscribe(context, publisher, log)
    store(log, 1, 5)
    store(log, 2, 6, parent=1)
    publisher.publish()
    publisher.publish()  # nothing has changed
    log.removed(np.array([2], np.int32))
    publisher.publish()
    topic, number, payload = socket.recv_multipart()
    assert (topic, int.from_bytes(number, "big")) == (b"kv@me", last + 1)
    stamp, events, rank = msgspec.msgpack.decode(payload)
    assert stamp > 1e9
    assert rank == 0
    (first,), (second,) = (event[1] for event in events)
    assert [event[0] for event in events] == ["BlockStored", "BlockStored"]
    assert [event[2] for event in events] == [None, first]
    _, number, payload = socket.recv_multipart()
    assert int.from_bytes(number, "big") == last + 2
    assert msgspec.msgpack.decode(payload)[1] == [["BlockRemoved", [second], "GPU"]]


def test_replay_gives_what_the_ring_still_has(context, publisher):
    publisher, log = publisher(buffer_steps=3)
    for token in range(5):
        store(log, token + 1, token)
        publisher.publish()
    while (rows := replay(context, publisher, 0))[-1][0] != 4:
        pass
    assert [number for number, _ in rows] == [2, 3, 4]
    assert [events[0][3] for _, (_, events, _) in rows] == [[2], [3], [4]]
    assert replay(context, publisher, 4) == rows[-1:]
    assert replay(context, publisher, 9) == []


def test_a_strange_question_hurts_nobody(context, publisher):
    publisher, log = publisher()
    socket = context.socket(zmq.DEALER)
    socket.connect(publisher.replay_endpoint)
    for question in ([b"x"], [b"", b"123456789"], [b""]):
        socket.send_multipart(question)
    store(log, 1, 1)
    publisher.publish()
    assert replay(context, publisher, 0)


def test_many_changes_of_a_step_become_several_batches(context, publisher):
    publisher, log = publisher()
    for page in range(2500):
        store(log, page + 1, page)
    publisher.publish()
    while len(rows := replay(context, publisher, 0)) != 3:
        pass
    assert [len(events) for _, (_, events, _) in rows] == [1024, 1024, 452]


def test_a_taken_port_is_one_clear_error(publisher):
    first, _ = publisher()
    with pytest.raises(OSError, match=r"--kv-events-config: cannot listen on tcp://127.0.0.1:\d+: Address already"):
        publisher(endpoint=first.endpoint)


def test_no_replay_when_told_so(publisher):
    assert publisher(replay_endpoint=None)[0].replay_endpoint is None


def test_both_engines_shapes_are_read():
    vllm = parse_kv_events_config('{"enable_kv_cache_events": false, "publisher": "zmq", "endpoint": "tcp://*:5557"}')
    sglang = parse_kv_events_config(
        '{"publisher": "zmq", "topic": "kv-events", "endpoint": "tcp://*:5557", "replay_endpoint": null,'
        ' "buffer_steps": 10000, "hwm": 100000, "max_queue_size": 100000}'
    )
    assert not vllm.enabled
    assert sglang.enabled
    assert (vllm.replay, sglang.replay) == ("tcp://*:*", None)


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", '{"publisher": "kafka"}', '{"endpoint": 5557}', '{"endpoint": "5557"}', '{"hwm": -1}', '{"a": 1}'],
)
def test_a_wrong_setting_stops_the_start(text, capsys):
    with pytest.raises(ValueError, match=r"."):
        parse_kv_events_config(text)
    with pytest.raises(SystemExit) as end:
        parse_server_args(["--kv-events-config", text])
    assert end.value.code == 2
    assert "--kv-events-config" in capsys.readouterr().err
