"""A scheduler without a model: it speaks the real messages, and its answers follow from the prompt.

Token i of an answer is token i of the prompt, over and over ("echo"). A prompt that starts with ``SLOW`` moves on only
when the test lets it: with ``hold=True`` no step is taken until ``release`` is called.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
import zmq

from backend.config import ServerArgs
from backend.messages import (
    Finish,
    FromScheduler,
    NewRequest,
    ProfileCommand,
    SchedulerReady,
    SchedulerStats,
    TokenLogprobs,
    ToScheduler,
)
from backend.prompt.source import ModelSource

CONTEXT_LENGTH = 512
VOCAB_SIZE = 50_000
DIE_TOKEN = 7  # a request whose prompt is this one token makes the process die
STUCK_TOKEN = 8  # a prompt that ends in it gets one token and no more until it is aborted
SILENT_TOKEN = 9  # a prompt that ends in it gets no token at all until it is aborted


def ready_message(error: str = "") -> SchedulerReady:
    return SchedulerReady(
        max_total_tokens=100_000,
        max_running_requests=64,
        page_size=1,
        context_length=CONTEXT_LENGTH,
        dtype="float32",
        device="fake",
        load_seconds=0.0,
        weight_bytes=1 << 30,
        kv_cache_bytes=1 << 29,
        vocab_size=VOCAB_SIZE,
        error=error,
    )


@dataclass(slots=True)
class _Running:
    request: NewRequest
    prompt: list[int]
    cached: int
    told: bool = False  # how much of its prompt was cached
    made: int = 0

    @property
    def last(self) -> int:
        return self.prompt[-1]


@dataclass
class FakeEngine:
    """The scheduler's state; ``step`` gives each running request one token."""

    running: dict[int, _Running] = field(default_factory=dict)
    seen: list[list[int]] = field(default_factory=list)
    stats: SchedulerStats = field(default_factory=lambda: SchedulerStats(total_tokens=100_000))
    aborted: list[int] = field(default_factory=list)
    received: list[NewRequest] = field(default_factory=list)
    profiles: list[ProfileCommand] = field(default_factory=list)
    vector: Callable[[list[int]], list[float]] = lambda prompt: [prompt[-1] / 100.0]  # of those that want one
    slots: int = 1 << 30  # requests that run at once; the others wait
    going: threading.Event = field(default_factory=threading.Event)  # cleared: the scheduler stands still

    def __post_init__(self) -> None:
        self.going.set()

    def receive(self, message: ToScheduler, out: FromScheduler) -> None:
        for request in message.new:
            prompt = np.frombuffer(request.input_ids, dtype="<i4").tolist()
            self.received.append(request)
            cached = min(max((_common(prompt, old) for old in self.seen), default=0), len(prompt) - 1)
            self.seen.append(prompt)
            self.stats.prompt_tokens_total += len(prompt)
            self.stats.cached_prompt_tokens_total += cached
            self.stats.prefill_tokens_total += len(prompt) - cached
            self.running[request.uid] = _Running(request, prompt, cached)
        if message.pause or message.resume:
            self.stats.paused = bool(message.pause)
        if message.profile is not None:
            self.profiles.append(message.profile)
            done = bool(message.profile.folder) or len(self.profiles) > 1
            out.profiled.append((done, message.profile.folder or ("a.trace.json.gz" if done else "nothing to end")))
        for uid in message.abort:
            self.aborted.append(uid)
            self.running.pop(uid, None)
        if message.flush_cache:
            done = not self.running
            if done:
                self.seen.clear()
            out.flushed = (message.flush_cache, done)

    def step(self, out: FromScheduler) -> None:
        out.stats = self.stats
        if self.stats.paused:
            return
        for uid, row in list(self.running.items())[: self.slots]:
            if not row.told:
                row.told = True
                out.started.append((uid, row.cached))
            if row.prompt == [DIE_TOKEN]:
                os._exit(3)
            if row.last == SILENT_TOKEN or (row.last == STUCK_TOKEN and row.made):
                continue
            self._token(uid, row, out)
        self.stats.running = len(self.running)
        out.stats = self.stats

    def _token(self, uid: int, row: _Running, out: FromScheduler) -> None:
        request = row.request
        if request.pooling:
            out.embeddings.append((uid, np.asarray(self.vector(row.prompt), dtype="<f4").tobytes()))
        if request.sampling.max_new_tokens == 0:
            self._end(uid, out, Finish(uid, "length"))
            return
        token = row.prompt[row.made % len(row.prompt)]
        row.made += 1
        self.stats.decode_tokens_total += 1
        if request.logprobs is not None:
            self._tell(uid, row, token, out)
        out.uids.append(uid)
        out.tokens.append(token)
        if token in request.stop_token_ids and row.made > request.sampling.min_new_tokens:
            self._end(uid, out, Finish(uid, "stop", matched=token))
        elif row.made >= request.sampling.max_new_tokens:
            self._end(uid, out, Finish(uid, "length"))

    def _tell(self, uid: int, row: _Running, token: int, out: FromScheduler) -> None:
        """A token's log probability is a hundredth of its id, below zero; the likeliest ones are itself and 99."""
        spec = row.request.logprobs

        def place(token: int) -> TokenLogprobs:
            top = [(-token / 100, token), (-99.0, 99)][: spec.top]
            return TokenLogprobs(uid, token, -token / 100, top, [-each / 100 for each in spec.ids])

        if row.made == 1 and spec.start >= 0:
            out.prompt_logprobs += [place(each) for each in row.prompt[max(spec.start, 1) :]]
        out.logprobs.append(place(token))

    def _end(self, uid: int, out: FromScheduler, finish: Finish) -> None:
        del self.running[uid]
        out.finished.append(finish)

    @property
    def has_work(self) -> bool:
        return not self.stats.paused and any(
            not (row.last == SILENT_TOKEN or (row.last == STUCK_TOKEN and row.made))
            for row in list(self.running.values())[: self.slots]
        )


def _common(left: list[int], right: list[int]) -> int:
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def serve(engine: FakeEngine, to_scheduler: str, from_scheduler: str, context: zmq.Context | None = None) -> None:
    """Answer messages until told to shut down. Works in a process and in a thread."""
    own = context is None
    context = context or zmq.Context()
    inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    try:
        inbox.connect(to_scheduler)
        outbox.connect(from_scheduler)
        outbox.send(msgspec.msgpack.encode(ready_message()))
        _loop(engine, inbox, outbox)
    finally:
        inbox.close(0)
        outbox.close(0)
        if own:
            context.term()


def _loop(engine: FakeEngine, inbox: zmq.Socket, outbox: zmq.Socket) -> None:
    decoder = msgspec.msgpack.Decoder(ToScheduler)
    while True:
        out = FromScheduler()
        if not engine.has_work:
            inbox.poll()
        while inbox.poll(0):
            message = decoder.decode(inbox.recv())
            if message.shutdown:
                return
            engine.receive(message, out)
        engine.going.wait()
        engine.step(out)
        outbox.send(msgspec.msgpack.encode(out))


def run_fake_scheduler(args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str) -> None:
    """Target for a scheduler process."""
    serve(FakeEngine(), to_scheduler, from_scheduler)


def run_failing_scheduler(args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str) -> None:
    """A scheduler that cannot start and says why."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as outbox:
        outbox.connect(from_scheduler)
        outbox.send(msgspec.msgpack.encode(ready_message("the GPU is full: 1 GiB is missing")))


def run_vanishing_scheduler(args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str) -> None:
    """A scheduler that dies before its first word."""
    os._exit(5)


def run_sleeping_scheduler(args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str) -> None:
    """A scheduler that loads for ever."""
    threading.Event().wait()


class FakeSchedulerThread:
    """The fake in a thread of the test's process, so that the test can look at its state."""

    def __init__(self, to_scheduler: str, from_scheduler: str) -> None:
        self.engine = FakeEngine()
        self._thread = threading.Thread(target=serve, args=(self.engine, to_scheduler, from_scheduler), daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(10)
        if self._thread.is_alive():
            raise TimeoutError("the fake scheduler was not told to shut down")
