"""KV events of the whole fleet: finds out who publishes them and keeps the exact index."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import zmq.asyncio
from prometheus_client import CollectorRegistry, Counter

from policies.prefix.block_index import BlockIndex, Source
from router.fleet.kv_sources import PATHS, KVSource, sources
from router.fleet.kv_stream import KVStream
from router.fleet.tasks import WorkerTasks
from router.fleet.told import decoded
from router.fleet.vitals import Fetcher
from router.fleet.worker import Health, Worker
from router.upstream import UpstreamError

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
LOOK_SECONDS = 0.5  # between two looks at a worker that is not well yet
AGAIN_SECONDS = 60.0  # a worker may come back at the same address with other ports
Row = tuple[str, str, dict[str, str], float]


class KVEvents:
    """One task per worker: asks where its events are, then follows each of its streams."""

    def __init__(
        self,
        fetcher: Fetcher,
        index: BlockIndex,
        registry: CollectorRegistry,
        told: Callable[[Worker, Mapping[str, Any]], None] = lambda _worker, _info: None,
    ) -> None:
        """``told`` gets what each worker says of itself."""
        self.index = index
        self._told = told
        self._fetcher = fetcher
        self._context = zmq.asyncio.Context()
        self._tasks = WorkerTasks("kv events", self._follow)
        self._streams: dict[str, list[KVStream]] = {}
        self._gaps = Counter("warmlane_kv_event_gaps_total", "Batches that did not follow the last", registry=registry)
        self._resyncs = Counter("warmlane_kv_event_resyncs_total", "Caches learned anew", registry=registry)
        self._bad = Counter("warmlane_kv_events_unread_total", "Events that could not be read", registry=registry)

    def watch(self, worker: Worker) -> None:
        """Follow ``worker`` from when it is well."""
        self._tasks.start(worker)

    def unwatch(self, worker: Worker) -> None:
        """``worker`` is gone."""
        self._tasks.stop(worker)
        self._streams.pop(worker.url, None)
        self.index.forget(worker.url)

    def restarted(self, worker: Worker) -> None:
        """Its process is another one: nothing that was known holds."""
        if worker in self._tasks:
            self.unwatch(worker)
            self.watch(worker)

    async def close(self) -> None:
        await self._tasks.close()
        self._context.destroy(linger=0)

    @property
    def followed(self) -> bool:
        """Does anybody publish?"""
        return bool(self._streams)

    @property
    def block_sizes(self) -> set[int]:
        """Those in use and those announced, for which a prompt needs a chain."""
        announced = {stream.at.block_size for streams in self._streams.values() for stream in streams}
        return (self.index.block_sizes | announced) - {0}

    def exact(self, url: str) -> bool:
        """Is everything that this worker holds known?"""
        streams = self._streams.get(url)
        return bool(streams) and all(stream.complete for stream in streams or ())

    def state(self, url: str) -> str:
        """For ``/workers``: ``none``, ``exact``, or ``partial``: joined in the middle, or it did not fit."""
        return "exact" if self.exact(url) else "partial" if self._streams.get(url) else "none"

    def rows(self) -> Iterable[Row]:
        """Gauges."""
        yield "warmlane_block_index_bytes", "Memory of the exact index", {}, self.index.used_bytes
        yield "warmlane_block_index_refused_blocks", "Blocks that found no room", {}, self.index.refused
        for url, streams in self._streams.items():
            labels = {"worker": url}
            held = sum(self.index.held(Source(url, stream.at.rank)) for stream in streams)
            yield "warmlane_kv_event_lag_seconds", "Age of the last event", labels, max(s.lag for s in streams)
            yield "warmlane_kv_blocks", "Blocks known of a worker", labels, held
            yield "warmlane_kv_exact", "1 when all its blocks are known", labels, float(self.exact(url))

    def gap(self) -> None:
        self._gaps.inc()

    def resync(self) -> None:
        self._resyncs.inc()

    def bad(self, events: int) -> None:
        self._bad.inc(events)

    async def _follow(self, worker: Worker) -> None:
        """Run the worker's streams; look again from time to time whether they are still the same."""
        found: list[KVSource] = []
        running: list[asyncio.Task[None]] = []
        try:
            while True:
                now = await self._sources(worker)
                if now is not None and now != found:
                    _cancel(running)
                    self.index.forget(worker.url)
                    found, running = now, self._start(worker, now)
                await asyncio.sleep(AGAIN_SECONDS if now is not None else LOOK_SECONDS)
        finally:
            _cancel(running)

    def _start(self, worker: Worker, found: list[KVSource]) -> list[asyncio.Task[None]]:
        self._streams.pop(worker.url, None)
        if not found:
            return []
        streams = [KVStream(self._context, worker.url, at, self.index, self) for at in found]
        self._streams[worker.url] = streams
        log.info("worker %s publishes KV events: its cache is followed exactly", worker.url)
        return [asyncio.get_running_loop().create_task(stream.run()) for stream in streams]

    async def _sources(self, worker: Worker) -> list[KVSource] | None:
        """The worker's streams; None when it cannot be asked now."""
        if worker.health is not Health.HEALTHY:
            return None
        told = False
        for path in PATHS:
            info = await self._info(worker, path)
            told |= info is not None
            if info:
                self._told(worker, info)
            if info and (found := sources(worker, info)):
                return found
        return sources(worker, {}) if told else None

    async def _info(self, worker: Worker, path: str) -> dict[str, Any] | None:
        """What it says of itself: empty when it has nothing to say there; None when it does not answer."""
        try:
            status, body = await self._fetcher.fetch(worker, "GET", path, ASK_SECONDS)
        except UpstreamError:
            return None
        return (decoded(body, dict[str, Any]) or {}) if status == 200 else {}


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
