"""KV events on the wire: a thread that encodes, publishes and replays, so that a step only hands its changes over.

PUB sends ``[topic, sequence number (8 bytes, big endian), msgpack [timestamp, events, dp_rank]]``. The replay socket
(ROUTER) is asked with a first sequence number and answers ``["", number, payload]`` for each batch that it still has,
then ``["", -1, ""]``: SGLang's and vLLM's protocol.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec
import zmq

from backend.cache.events import BlockEvents, CacheLog, Change, Event
from backend.flags.kv_events import KVEventsConfig

logger = logging.getLogger(__name__)

END = (-1).to_bytes(8, "big", signed=True)
EVENTS_PER_BATCH = 1024  # subscribers refuse giant batches
JOIN_SECONDS = 2.0


class KVPublisher:
    """Publishes what ``log`` notes, for the thread that steps the scheduler. Raises ``OSError`` for its ports."""

    def __init__(self, config: KVEventsConfig, log: CacheLog, page_size: int, dp_rank: int = 0) -> None:
        self._log = log
        self._queue: deque[tuple[float, list[Change]]] = deque()
        self._context = zmq.Context()
        self._wake = self._context.socket(zmq.PAIR)
        try:
            pub = _bound(self._context, zmq.PUB, config.endpoint, config.hwm)
            replay = None if config.replay is None else _bound(self._context, zmq.ROUTER, config.replay, 0)
        except OSError:
            self._context.destroy(linger=0)
            raise
        inbox = self._context.socket(zmq.PAIR)
        inbox.bind("inproc://wake")
        self._wake.connect("inproc://wake")
        self.endpoint = _address(pub)
        self.replay_endpoint = None if replay is None else _address(replay)
        self._worker = _Worker(config, BlockEvents(page_size), dp_rank, self._queue, inbox, pub, replay)
        self._thread = threading.Thread(target=self._worker.run, name="kv-events", daemon=True)
        self._thread.start()

    def publish(self) -> None:
        """Send what the log has noted since the last call."""
        changes = self._log.take()
        if changes and self._thread.is_alive():
            self._queue.append((time.time(), changes))
            with contextlib.suppress(zmq.Again):  # full of wake-ups: one of them will do
                self._wake.send(b"", zmq.NOBLOCK)

    def close(self) -> None:
        """Publish what is left and stop."""
        self._worker.stopping = True
        with contextlib.suppress(zmq.Again):
            self._wake.send(b"", zmq.NOBLOCK)
        self._thread.join(JOIN_SECONDS)
        self._wake.close(linger=0)
        if not self._thread.is_alive():
            self._context.destroy(linger=100)


class _Worker:
    """What runs in the thread. It alone touches the sockets."""

    def __init__(
        self,
        config: KVEventsConfig,
        blocks: BlockEvents,
        dp_rank: int,
        queue: deque[tuple[float, list[Change]]],
        inbox: zmq.Socket[bytes],
        pub: zmq.Socket[bytes],
        replay: zmq.Socket[bytes] | None,
    ) -> None:
        self.stopping = False
        self._topic = config.topic.encode()
        self._most_waiting = config.max_queue_size
        self._blocks = blocks
        self._dp_rank = dp_rank
        self._queue = queue
        self._inbox = inbox
        self._pub = pub
        self._replay = replay
        self._sent: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._sequence = 0
        self._encoder = msgspec.msgpack.Encoder()

    def run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._inbox, self._replay):
            if socket is not None:
                poller.register(socket, zmq.POLLIN)
        try:
            while not self.stopping or self._queue:
                ready = dict(poller.poll())
                if self._inbox in ready:
                    self._drain_inbox()
                    self._publish_waiting()
                if self._replay is not None and self._replay in ready:
                    self._answer(self._replay)
        except Exception:
            logger.exception("KV events stopped: a defect; subscribers see no more of them until a restart")

    def _drain_inbox(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self._inbox.recv(zmq.NOBLOCK)

    def _publish_waiting(self) -> None:
        while self._queue:
            stamp, changes = self._queue.popleft()
            for events in _portions(self._blocks.events(changes)):
                # Too far behind: subscribers see the gap in the numbers, while the hashes stay right.
                if len(self._queue) <= self._most_waiting:
                    self._send(self._encoder.encode((stamp, events, self._dp_rank)))
                self._sequence += 1

    def _send(self, payload: bytes) -> None:
        self._sent.append((self._sequence, payload))
        self._pub.send_multipart([self._topic, _number(self._sequence), payload])

    def _answer(self, replay: zmq.Socket[bytes]) -> None:
        """Send everything from the number asked for on. A question of another shape gets no answer."""
        identity, *frames = replay.recv_multipart()
        if not frames or len(frames[-1]) != 8:
            return
        first = int.from_bytes(frames[-1], "big")
        for number, payload in list(self._sent):
            if number >= first:
                replay.send_multipart([identity, b"", _number(number), payload])
        replay.send_multipart([identity, b"", END, b""])


def _portions(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    for start in range(0, len(events), EVENTS_PER_BATCH):
        yield events[start : start + EVENTS_PER_BATCH]


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _bound(context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str, hwm: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.set_hwm(hwm)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise OSError(f"--kv-events-config: cannot listen on {endpoint}: {error}") from None
    return socket


def _address(socket: zmq.Socket[bytes]) -> str:
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
