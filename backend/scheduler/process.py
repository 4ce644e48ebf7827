"""The scheduler process: one thread that owns the model, fed by ZMQ.

Sockets: PULL for ``ToScheduler``, PUSH for ``SchedulerReady`` and then one ``FromScheduler`` per step.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import zmq

from backend.cache.events import CacheLog
from backend.config import ServerArgs
from backend.flags.kv_events import parse_kv_events_config
from backend.messages import FromScheduler, KVEventsInfo, ProfileCommand, SchedulerReady, SchedulerStats, ToScheduler
from backend.prompt.source import ModelSource
from backend.scheduler.kv_publisher import KVPublisher
from backend.scheduler.loop import Scheduler
from backend.scheduler.watchdog import Watchdog


def run_scheduler(args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str) -> None:
    """Load the model, say ``SchedulerReady``, then step until told to shut down. Runs in a process of its own."""
    logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(levelname)s scheduler: %(message)s")
    with zmq.Context() as context, context.socket(zmq.PULL) as inbox, context.socket(zmq.PUSH) as outbox:
        for socket, address in ((inbox, to_scheduler), (outbox, from_scheduler)):
            socket.setsockopt(zmq.LINGER, 1000)
            socket.set_hwm(0)
            socket.connect(address)
        try:
            from backend.core import build_core

            core = build_core(args, source)
            publisher = kv_publisher(args, core.scheduler, core.ready)
        except (ValueError, MemoryError, OSError) as error:
            outbox.send(msgspec.msgpack.encode(_failed(str(error) or type(error).__name__)))
            sys.exit(1)
        outbox.send(msgspec.msgpack.encode(core.ready))
        # Everything loaded so far lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        try:
            watchdog = Watchdog(args.watchdog_timeout, core.scheduler.describe) if args.watchdog_timeout else None
            SchedulerLoop(core.scheduler, inbox, outbox, publisher, watchdog, core.profiler, core.tell).run()
        finally:
            if publisher is not None:
                publisher.close()


def kv_publisher(args: ServerArgs, scheduler: Scheduler, ready: SchedulerReady) -> KVPublisher | None:
    """The publisher of KV events, noted in ``ready``, when the settings ask for one."""
    config = parse_kv_events_config(args.kv_events_config) if args.kv_events_config else None
    if config is None or not config.enabled or args.disable_radix_cache:
        return None
    log = scheduler.rows.radix.log = CacheLog()
    publisher = KVPublisher(config, log, ready.page_size)
    ready.kv_events = KVEventsInfo(publisher.endpoint, publisher.replay_endpoint, config.topic, ready.page_size)
    return publisher


def _failed(message: str) -> SchedulerReady:
    return SchedulerReady(0, 0, 0, 0, "", "", 0.0, 0, 0, 0, error=message)


COUNT_SECONDS = 1.0  # between the figures that cost more than a number


class StepProfiler(Protocol):
    """See :class:`backend.runner.profiler.Profiler`."""

    def answer(self, command: ProfileCommand) -> tuple[bool, str]: ...

    def stepped(self) -> None: ...


class SchedulerLoop:
    """Moves messages between the sockets and a scheduler."""

    def __init__(
        self,
        scheduler: Scheduler,
        inbox: zmq.Socket[bytes],
        outbox: zmq.Socket[bytes],
        publisher: KVPublisher | None = None,
        watchdog: Watchdog | None = None,
        profiler: StepProfiler | None = None,
        tell: Callable[[SchedulerStats], None] | None = None,
    ) -> None:
        """``tell`` adds, now and then, what is known of the device."""
        self._scheduler = scheduler
        self._tell = tell
        self._profiler = profiler
        self._profiled: list[tuple[bool, str]] = []  # told with the next message
        self._watchdog = watchdog
        self._publisher = publisher
        self._inbox = inbox
        self._outbox = outbox
        self._decoder = msgspec.msgpack.Decoder(ToScheduler)
        self._encoder = msgspec.msgpack.Encoder()
        self._stopped = False
        self._count_at = 0.0

    def run(self) -> None:
        """Step while there is work, sleep on the socket while there is none."""
        while True:
            news = self._receive(wait=not self._scheduler.has_work)
            if self._stopped:
                return
            if news or self._scheduler.has_work:
                self._send(self._step())

    def _step(self) -> FromScheduler:
        begun = time.monotonic()
        computed = self._computed
        if self._watchdog is not None:
            self._watchdog.begin(begun)
        out = self._scheduler.step()
        if self._watchdog is not None:
            self._watchdog.end()
        ended = time.monotonic()
        out.stats.step_seconds_total += ended - begun
        out.profiled, self._profiled = self._profiled, []
        if self._profiler is not None and self._computed > computed:  # else there was a message and nothing to do
            self._profiler.stepped()
        if ended >= self._count_at:
            self._count_at = ended + COUNT_SECONDS
            self._scheduler.count()
            if self._tell is not None:
                self._tell(out.stats)
            out.stats.cpu_seconds_total = time.process_time()
        return out

    @property
    def _computed(self) -> int:
        """Tokens of all steps so far."""
        stats = self._scheduler.stats
        return stats.prefill_tokens_total + stats.decode_tokens_total

    def _receive(self, *, wait: bool) -> bool:
        """Take in what has arrived, up to a pause or a resume; True when there was anything."""
        news = False
        if wait:
            begun = time.monotonic()
            self._inbox.poll()
            self._scheduler.stats.idle_seconds_total += time.monotonic() - begun
        with contextlib.suppress(zmq.Again):
            while True:
                message = self._decoder.decode(self._inbox.recv(zmq.NOBLOCK))
                self._take_in(message)
                news = True
                if message.pause or message.resume:  # told before the next one may undo it: somebody waits for that
                    break
        return news

    def _take_in(self, message: ToScheduler) -> None:
        if self._watchdog is not None:
            self._watchdog.begin(time.monotonic())  # a pause and a flush wait for the steps under way
        self._scheduler.receive(message)
        if self._watchdog is not None:
            self._watchdog.end()
        if message.profile is not None and self._profiler is not None:
            self._profiled.append(self._profiler.answer(message.profile))
        self._stopped |= message.shutdown

    def _send(self, out: FromScheduler) -> None:
        self._outbox.send(self._encoder.encode(out), copy=False)
        if self._publisher is not None:
            self._publisher.publish()
