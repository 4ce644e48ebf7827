"""Active health checks: each worker has its own timer, so that a slow one delays no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from router.config import HealthSettings
from router.fleet.vitals import Vital
from router.fleet.worker import Health, Worker

log = logging.getLogger(__name__)

RECHECK_SECONDS = 0.5  # between checks of a worker that is not well
RECHECK_TIMEOUT = 1.0  # for a check of a worker that was well: the next one may find it well again
MODELS_SECONDS = 30.0  # between questions for a well worker's models
SUSPECT_GAP_SECONDS = 0.1  # the least time between two checks that failed requests ask for


class Prober(Protocol):
    """What the monitor asks workers; :class:`router.fleet.vitals.Vitals` does."""

    async def check(self, worker: Worker, endpoint: str, timeout: float) -> Vital: ...

    async def models(self, worker: Worker, timeout: float) -> dict[str, dict[str, Any]] | None: ...

    async def started_at(self, worker: Worker, timeout: float) -> float | None: ...


class Listener(Protocol):
    """Who wants to know what the checks find."""

    def recovered(self, worker: Worker) -> None:
        """An unhealthy worker is healthy again."""

    def restarted(self, worker: Worker) -> None:
        """Another process answers at the worker's address: its cache is empty."""


@dataclass(slots=True)
class _Watch:
    worker: Worker
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    successes: int = 0
    models_at: float = float("-inf")
    gone: bool = False  # nobody listened at its address since it was last well
    started_at: float | None = None  # when its process began, if it says so
    task: asyncio.Task[None] | None = None


class HealthMonitor:
    """Watches workers and writes their ``health`` and ``models``."""

    def __init__(
        self,
        prober: Prober,
        settings: HealthSettings,
        listener: Listener,
        checked: Callable[[Worker], None] = lambda _worker: None,
    ) -> None:
        """``checked`` is called after whatever may have changed a worker."""
        self._prober = prober
        self._settings = settings
        self._listener = listener
        self._checked = checked
        self._watches: dict[Worker, _Watch] = {}

    def watch(self, worker: Worker) -> None:
        """Start to check ``worker``, now and at its interval."""
        watch = self._watches[worker] = _Watch(worker)
        if self._unchecked(worker):
            worker.health = Health.HEALTHY
        watch.task = asyncio.get_running_loop().create_task(self._run(watch), name=f"health {worker.url}")

    def unwatch(self, worker: Worker) -> None:
        watch = self._watches.pop(worker, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()

    def changed(self, worker: Worker) -> None:
        """``worker`` is to be watched otherwise."""
        if (watch := self._watches.get(worker)) is not None:
            watch.wake.set()

    def suspect(self, worker: Worker) -> None:
        """A request failed on ``worker``: check it now instead of at the next tick."""
        if (watch := self._watches.get(worker)) is not None:
            watch.wake.set()

    def silent(self, worker: Worker) -> None:
        """``worker`` left questions unanswered: no more requests until health checks pass again."""
        watch = self._watches.get(worker)
        if watch is not None and not self._unchecked(worker) and worker.health is Health.HEALTHY:
            worker.health = Health.UNHEALTHY
            watch.successes = 0
            watch.wake.set()
            self._checked(worker)

    def close(self) -> None:
        for worker in list(self._watches):
            self.unwatch(worker)

    def _unchecked(self, worker: Worker) -> bool:
        return self._settings.disabled or worker.spec.disable_health_check

    async def _run(self, watch: _Watch) -> None:
        while True:
            await self._check(watch)
            self._checked(watch.worker)
            try:
                async with asyncio.timeout(self._pause(watch)):
                    await watch.wake.wait()
                    watch.wake.clear()
                    await asyncio.sleep(SUSPECT_GAP_SECONDS)
            except TimeoutError:
                continue

    def _pause(self, watch: _Watch) -> float:
        interval = watch.worker.spec.health_check_interval_secs or self._settings.interval
        unsure = watch.worker.health is not Health.HEALTHY or watch.failures
        return min(interval, RECHECK_SECONDS) if unsure else interval

    async def _check(self, watch: _Watch) -> None:
        worker = watch.worker
        timeout = worker.spec.health_check_timeout_secs or self._settings.timeout
        was = worker.health
        if was is Health.UNHEALTHY:
            timeout = min(timeout, RECHECK_TIMEOUT)
        if self._unchecked(worker):
            worker.health = Health.HEALTHY
        else:
            vital = await self._prober.check(worker, self._settings.endpoint, timeout)
            well = vital is Vital.WELL
            worker.gone = vital is Vital.GONE
            watch.gone |= vital is Vital.GONE and was is not Health.STARTING
            models = await self._models(watch, timeout) if well and was is not Health.HEALTHY else None
            if well and watch.gone:
                self._restarted(watch)
            self._count(watch, well)
            if models is not None:
                worker.models = models
        if worker.health is Health.HEALTHY and was is Health.HEALTHY:
            worker.models = await self._models(watch, timeout) or worker.models

    async def _models(self, watch: _Watch, timeout: float) -> dict[str, dict[str, Any]] | None:
        """Asked before a worker gets its first request, so that it gets none for a model it lacks."""
        now = asyncio.get_running_loop().time()
        if watch.worker.health is Health.HEALTHY and watch.worker.models and now - watch.models_at < MODELS_SECONDS:
            return None
        watch.models_at = now
        await self._look_at_start(watch, timeout)
        return await self._prober.models(watch.worker, timeout)

    async def _look_at_start(self, watch: _Watch, timeout: float) -> None:
        """A worker may restart between two checks: the start of its process tells."""
        started_at = await self._prober.started_at(watch.worker, timeout)
        if started_at is None:
            return
        if watch.started_at not in (None, started_at) and not watch.gone:
            self._restarted(watch)
        watch.started_at = started_at

    def _restarted(self, watch: _Watch) -> None:
        watch.gone = False
        log.warning("worker %s was restarted: its prefixes are forgotten", watch.worker.url)
        self._listener.restarted(watch.worker)

    def _count(self, watch: _Watch, well: bool) -> None:
        worker, spec = watch.worker, watch.worker.spec
        watch.successes = watch.successes + 1 if well else 0
        watch.failures = 0 if well else watch.failures + 1
        needed = 1 if worker.health is Health.STARTING else spec.health_success_threshold or self._settings.successes
        if worker.health is not Health.HEALTHY and watch.successes >= needed:
            worker.health = Health.HEALTHY
            log.info("worker %s is healthy", worker.url)
            self._listener.recovered(worker)
        elif worker.health is Health.STARTING and watch.failures == 1 and not worker.gone:
            log.warning("worker %s is not ready yet: %s", worker.url, worker.problem)
        elif worker.health is Health.HEALTHY and watch.failures >= (
            spec.health_failure_threshold or self._settings.failures
        ):
            worker.health = Health.UNHEALTHY
            log.warning(
                "worker %s is unhealthy: %d health checks in a row failed (%s)",
                worker.url, watch.failures, worker.problem,
            )  # fmt: skip
