"""CPU time of the server process for each streamed token: HTTP, detokenising, metrics; the model is a fake.

    python -m benchmarks.stream_cost [--streams 256] [--tokens 128] [--rounds 3] [--route chat|completions|generate]

A real server process with a real scheduler, whose runner answers random words, one step each ``--pace`` milliseconds;
a client process reads all streams at once and looks at nothing but their end. The figure is the CPU time that the
server process takes in a round, start of the requests included, divided by the tokens; the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.config import ServerArgs
from backend.prompt import ModelSource, load_prompt
from benchmarks.processes import free_port
from benchmarks.report import Row, report

GOAL_US = 25.0
VOCAB = 49_152
ROUTES = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "generate": "/generate"}
TEXT = "The quick brown fox jumps over the lazy dog, and then it rests a while in the shade of an old tree. "
PACE_VARIABLE = "WARMLANE_BENCH_PACE_MS"


class RandomStep:
    """Random words, after a while."""

    def __init__(self, tokens: NDArray[np.int32], due: float) -> None:
        self._tokens = tokens
        self._due = due

    def tokens(self) -> NDArray[np.int32]:
        time.sleep(max(0.0, self._due - time.monotonic()))
        return self._tokens


class RandomRunner:
    def __init__(self, pace: float, words: NDArray[np.int32]) -> None:
        self._pace = pace
        self._words = words
        self._random = np.random.default_rng(0)

    def launch(self, batch: object, slots: object) -> RandomStep:
        count = len(batch.rows)  # type: ignore[attr-defined]
        return RandomStep(self._random.choice(self._words, count), time.monotonic() + self._pace)


def run_fake_model(args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str) -> None:
    """The scheduler process: everything real but the model."""
    import msgspec
    import zmq

    from backend.messages import SchedulerReady
    from backend.scheduler.limits import SchedulerLimits, make_rows
    from backend.scheduler.loop import Scheduler
    from backend.scheduler.process import SchedulerLoop

    limits = SchedulerLimits(
        max_running_requests=512,
        max_queued_requests=None,
        context_length=2048,
        num_pages=40_000,
        page_size=16,
        prefill_budget=65_536,
        overlap=True,
    )
    words = np.array(load_prompt(source).tokenizer.encode(TEXT), np.int32)
    runner = RandomRunner(float(os.environ[PACE_VARIABLE]) / 1000, words)
    with zmq.Context() as context, context.socket(zmq.PULL) as inbox, context.socket(zmq.PUSH) as outbox:
        inbox.connect(to_scheduler)
        outbox.connect(from_scheduler)
        room = limits.num_pages * limits.page_size
        outbox.send(msgspec.msgpack.encode(SchedulerReady(room, 512, 16, 2048, "none", "fake", 0.0, 0, 0, VOCAB)))
        SchedulerLoop(Scheduler(runner, limits, make_rows(limits)), inbox, outbox).run()


def serve(port: int, pace: float) -> None:
    """The server process."""
    from backend.api.serve import serve as run_server

    os.environ[PACE_VARIABLE] = str(pace)
    args = ServerArgs(port=port, skip_server_warmup=True, log_level="error", grammar_backend="none")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the process's whole life
    sys.exit(run_server(args, run_fake_model))


def body(route: str, tokens: int) -> bytes:
    """A request for exactly ``tokens`` streamed tokens."""
    if route == "generate":
        sampling = {"max_new_tokens": tokens, "ignore_eos": True, "temperature": 0}
        return json.dumps({"text": "Hello there", "stream": True, "sampling_params": sampling}).encode()
    fields = {"max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": True, "model": "default"}
    fields |= {"messages": [{"role": "user", "content": "Hello"}]} if route == "chat" else {"prompt": "Hello there"}
    return json.dumps(fields).encode()


async def read_stream(port: int, head: bytes) -> int:
    """Read one answer to its end; the number of its events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(head)
    events, tail = 0, b""
    while not tail.endswith(b"0\r\n\r\n"):
        data = await reader.read(1 << 16)
        if not data:
            break
        events += data.count(b"data: ")
        tail = (tail + data)[-8:]
    writer.close()
    return events


async def read_all(port: int, route: str, streams: int, tokens: int) -> int:
    content = body(route, tokens)
    lines = f"POST {ROUTES[route]} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    head = f"{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content
    return sum(await asyncio.gather(*(read_stream(port, head) for _ in range(streams))))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def wait_ready(port: int) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
            writer.close()
            if b" 200 " in status:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)


def measure(route: str, streams: int, tokens: int, rounds: int, pace: float) -> tuple[float, float]:
    """(CPU microseconds a token, events a token), medians."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(port, pace))
    process.start()
    try:
        asyncio.run(asyncio.wait_for(wait_ready(port), 60))
        asyncio.run(read_all(port, route, streams, 8))
        costs, events = [], []
        for _ in range(rounds):
            before = cpu_seconds(process.pid or 0)
            seen = asyncio.run(read_all(port, route, streams, tokens))
            costs.append((cpu_seconds(process.pid or 0) - before) / (streams * tokens) * 1e6)
            events.append(seen / (streams * tokens))
        return statistics.median(costs), statistics.median(events)
    finally:
        process.terminate()
        process.join(20)


def rows(args: argparse.Namespace) -> list[Row]:
    cost, events = measure(args.route, args.streams, args.tokens, args.rounds, args.pace)
    detail = f"{ROUTES[args.route]}, {args.tokens} tokens each, {events:.2f} events a token"
    return [Row(f"CPU per streamed token, {args.streams} streams", cost, "us", GOAL_US, detail=detail)]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--route", default="chat", choices=list(ROUTES))
    made.add_argument("--streams", type=int, default=256)
    made.add_argument("--tokens", type=int, default=128)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--pace", type=float, default=80.0, help="milliseconds a step")
    return made


if __name__ == "__main__":
    report(rows(parser().parse_args()))
