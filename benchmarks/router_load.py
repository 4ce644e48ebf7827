"""Load and instant backends for the router benchmark: one process, raw asyncio protocols, as cheap as Python allows.

python -m benchmarks.router_load backends --count 4           # prints their ports, then serves until its input ends
python -m benchmarks.router_load requests --port 8080 ...     # prints one line of JSON with what it saw
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import string
import sys
import time
from collections import deque
from collections.abc import Iterator

import uvloop

CHUNK = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (
    b"word " * 8
)
FRAMED = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = (
    b'{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ok"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":16,"completion_tokens":1,"total_tokens":17}}'
)
CARDS = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
PACE_SECONDS = 0.01
SMALL = 4096  # longer bodies ask for no stream


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Backend(asyncio.Protocol):
    """Answers as soon as the request is whole; ``max_tokens`` is the chunks of a stream; an odd number is paced."""

    def __init__(self) -> None:
        self._buffer = b""
        self._missing = 0  # bytes of a long body that are still to come
        self._writable = asyncio.Event()
        self._writable.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
            if not self._missing:
                self._transport.write(WHOLE)
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        missing = _header(self._buffer[:end], b"content-length") - (len(self._buffer) - end)
        if missing and len(self._buffer) < SMALL and missing < SMALL:
            return
        request, self._buffer = self._buffer, b""
        self._missing = missing
        if not missing:
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET"):
            self._transport.write(_whole(CARDS if b" /v1/models" in request else b"{}"))
        elif len(request) < SMALL and (asked := STREAM.search(request)):
            self._start(int(asked[1]), int(asked[1]) % 2 == 1)
        else:
            self._transport.write(WHOLE)

    def _start(self, count: int, paced: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._stream(count, paced))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stream(self, count: int, paced: bool) -> None:
        self._transport.write(SSE_HEAD)
        while count:
            self._transport.write(FRAMED)
            count -= 1
            await asyncio.sleep(PACE_SECONDS if paced else 0)
            await self._writable.wait()
        self._transport.write(DONE)


WHOLE = _whole(ANSWER)
STREAM = re.compile(rb'"max_(?:completion_)?tokens": ?(\d\d+)')


def _header(head: bytes, name: bytes) -> int:
    start = head.lower().find(b"\r\n" + name + b":")
    return int(head[start + len(name) + 3 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


class Bodies:
    """Request bytes without end: prompts of ``size`` bytes, the first ``shared`` of each equal."""

    def __init__(self, size: int, shared: float, chunks: int, seed: int) -> None:
        rng = random.Random(seed)
        self._pool = "".join(rng.choices(string.ascii_letters + " ", k=max(size, 1024) + 65536))
        self._head = self._pool[: int(size * shared)]
        self._own = size - len(self._head)
        self._ask = f'"max_tokens":{chunks},"stream":true' if chunks else '"max_tokens":1'
        self._rng = rng

    def __iter__(self) -> Iterator[bytes]:
        while True:
            start = self._rng.randrange(65536)
            text = f"{self._head}{self._rng.random():.12f}{self._pool[start : start + self._own]}"
            body = f'{{"model":"m","messages":[{{"role":"user","content":"{text}"}}],{self._ask}}}'
            yield (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            ).encode()


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._head = b""
        self._size = 0  # bytes of the body so far
        self._left = -1  # bytes of the answer's body still to come; -1: chunked
        self._tail = b""
        self._first = 0.0
        self._due = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self._load.failed("connection lost")

    def send(self, request: bytes, due: float) -> None:
        self.busy, self._head, self._size, self._first, self._due = True, b"", 0, 0.0, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._head:
            end = data.find(b"\r\n\r\n")
            if end < 0 or not data.startswith(b"HTTP/1.1 200"):
                self._load.failed(data[:200].decode("latin-1"))
                return
            self._head, data = data[:end], data[end + 4 :]
            self._left = -1 if b"chunked" in self._head.lower() else _header(self._head, b"content-length")
        self._size += len(data)
        if data and not self._first:
            self._first = time.perf_counter()
        if self._left < 0:
            self._tail = (self._tail + data)[-8:]
            done = self._tail.endswith(b"\r\n0\r\n\r\n")
        else:
            self._left -= len(data)
            done = self._left <= 0
        if done:
            self.busy, self._tail = False, b""
            if self._size < self._load.least:
                self._load.failed("an answer is too short")
                return
            self._load.done(self, self._first - self._due)


class Load:
    """Closed loop: each connection sends as soon as it has its answer. With a rate: requests fall due at that pace."""

    def __init__(self, requests: int, bodies: Iterator[bytes], rate: float, least: int) -> None:
        self._to_send = self._missing = requests
        self._bodies = bodies
        self._rate = rate
        self.least = least  # bytes of a whole answer; fewer mean that a router did not ask for the stream
        self._idle: deque[Client] = deque()
        self._due: deque[float] = deque()
        self.finished = asyncio.get_running_loop().create_future()
        self.first_bytes: list[float] = []
        self.seconds = 0.0

    async def run(self, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(lambda: Client(self), "127.0.0.1", port) for _ in range(connections)]
        self._idle.extend(protocol for _, protocol in made)
        start = time.perf_counter()
        if self._rate:
            pacing = asyncio.create_task(self._pace(start))
        else:
            while self._idle and self._to_send:
                self._next(self._idle.popleft(), time.perf_counter())
        await self.finished
        self.seconds = time.perf_counter() - start
        if self._rate:
            await pacing

    async def _pace(self, start: float) -> None:
        for index in range(self._to_send):
            due = start + index / self._rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if self._idle:
                self._next(self._idle.popleft(), due)
            else:
                self._due.append(due)

    def _next(self, client: Client, due: float) -> None:
        self._to_send -= 1
        client.send(next(self._bodies), due)

    def done(self, client: Client, seconds: float) -> None:
        self.first_bytes.append(seconds)
        self._missing -= 1
        if not self._missing:
            self.finished.set_result(None)
        elif self._due:
            self._next(client, self._due.popleft())
        elif self._to_send and not self._rate:
            self._next(client, time.perf_counter())
        else:
            self._idle.append(client)

    def failed(self, why: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(RuntimeError(why))


async def backends(count: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Backend, "127.0.0.1", 0, backlog=1024) for _ in range(count)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


async def requests(arguments: argparse.Namespace) -> None:
    bodies = iter(Bodies(arguments.size, arguments.shared, arguments.chunks, arguments.seed))
    load = Load(arguments.requests, bodies, arguments.rate, arguments.chunks * len(CHUNK))
    await load.run(arguments.port, arguments.connections)
    times = sorted(load.first_bytes)
    said = {
        "seconds": load.seconds,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
    }
    print(json.dumps(said), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("backends", "requests"))
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--port", type=int)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--size", type=int, default=1024, help="bytes of each prompt")
    parser.add_argument("--shared", type=float, default=0.0, help="share of the prompt that all have in common")
    parser.add_argument("--chunks", type=int, default=0, help="of each stream; odd: one each 10 ms, even: no pause")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second, open loop")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    uvloop.run(backends(arguments.count) if arguments.what == "backends" else requests(arguments))


if __name__ == "__main__":
    main()
