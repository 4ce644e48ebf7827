"""Asks backends for their load: what is there beyond our own leases was sent by others, and placement counts it too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from policies.cost.leases import LeaseBook
from router.fleet.load_reports import SOURCES, LoadReport
from router.fleet.vitals import Fetcher
from router.fleet.worker import Health, Worker
from router.upstream import UpstreamError

log = logging.getLogger(__name__)

EVERY_S = 1.0
TIMEOUT_S = 1.0
SILENT_EVERY_S = 60.0  # between two looks at a worker that tells nothing


class LoadPolls:
    """One timer a worker. ``clock``: the leases' one, in seconds."""

    def __init__(self, fetcher: Fetcher, leases: LeaseBook, clock: Callable[[], float]) -> None:
        self._fetcher = fetcher
        self._leases = leases
        self._clock = clock
        self._tasks: dict[Worker, asyncio.Task[None]] = {}
        self._source: dict[Worker, int] = {}  # the one in SOURCES that answered

    def watch(self, worker: Worker) -> None:
        """Ask ``worker`` from now on."""
        loop = asyncio.get_running_loop()
        self._tasks[worker] = loop.create_task(self._run(worker), name=f"loads {worker.url}")

    def unwatch(self, worker: Worker) -> None:
        self._source.pop(worker, None)
        if (task := self._tasks.pop(worker, None)) is not None:
            task.cancel()

    def state(self, worker: Worker) -> str:
        """Where ``worker`` tells its load, for operators."""
        source = self._source.get(worker)
        return "not told" if source is None else SOURCES[source][0]

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for worker in list(self._tasks):
            self.unwatch(worker)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, worker: Worker) -> bool:
        """Ask once and tell the leases. Whether the worker said anything."""
        known = self._source.get(worker)
        for index in range(len(SOURCES)) if known is None else (known,):
            report = await self._report(worker, index)
            if report is not None:
                self._source[worker] = index
                self._leases.reported(
                    worker.url, report.waiting_tokens, report.running, self._clock(), requests=report.requests
                )
                return True
        self._source.pop(worker, None)
        self._leases.unreported(worker.url)
        return False

    async def _run(self, worker: Worker) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if worker.health is Health.HEALTHY and not await self.ask(worker):
                await asyncio.sleep(SILENT_EVERY_S)

    async def _report(self, worker: Worker, index: int) -> LoadReport | None:
        path, read = SOURCES[index]
        try:
            status, body = await self._fetcher.fetch(worker, "GET", path, TIMEOUT_S)
        except UpstreamError as error:
            log.debug("worker %s did not tell its load: %s", worker.url, error)
            return None
        return read(body) if status == 200 else None
