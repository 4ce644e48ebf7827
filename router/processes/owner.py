"""The owner of what must be known once: the fleet, its health, its breakers, and the data processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from policies import make_policy
from router import tls
from router.admin import Admin
from router.app import make_auth, refusals_answered
from router.breaker import BreakerState
from router.config import RouterConfig
from router.control import ControlPlane
from router.exchange import now_seconds
from router.fleet.discovery.membership import DiscoveryError
from router.fleet.discovery.sources import make_sources
from router.fleet.health import HealthMonitor
from router.fleet.registry import Registry
from router.fleet.vitals import Vitals
from router.fleet.worker import Worker
from router.front import MetricsFront
from router.guards import Guards
from router.http.listener import Listener
from router.http.message import Reply, Request
from router.http.server import Limits
from router.inflight import Inflight
from router.metrics import Metrics
from router.processes.gathered import Gathered
from router.processes.guard_mirror import apply
from router.processes.keeper import DataProcessError, Keeper
from router.processes.messages import Emptied, Message, Noted, Rest, Setup, Silent, Snapshot, Suspect, Verdict
from router.processes.mirror import take
from router.processes.port import Reservation
from router.processes.shared_load import SharedLoads, Slots
from router.upstream import Upstream

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.001  # changes that come together go out in one snapshot


class Owner:
    """A router of several processes, with the methods that :class:`router.app.Router` has for its service.

    Making one raises ``ConfigError``.
    """

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        tls.listening(config)  # what data processes would refuse is refused before any is started
        make_policy(config.policy, prefix_bytes=1, seed=config.seed, options=config.policy_options)
        self._auth = make_auth(config)
        self._backend_tls = tls.towards_backends(config)
        self.registry = Registry(config.workers)
        self.inflight = Inflight()
        self.metrics = Metrics(self.registry.knows, config.prometheus_duration_buckets)
        self.guards = Guards(config.breaker, self._breaker_turned)
        self.keepers: list[Keeper] = []
        self._notes: dict[str, dict[str, Any]] = {}
        self._slots = Slots()
        self._version = 0
        self._sending: asyncio.TimerHandle | None = None
        self._listener: Listener | None = None
        self._controls: list[ControlPlane] = []
        self.port = config.port
        self.metrics_port = config.prometheus_port

    @property
    def under_way(self) -> int:
        """Requests sent to workers and not finished."""
        return sum(self._load(worker.url) for worker in self.registry.all())

    async def start(self) -> None:
        """Listen, and watch the workers of the configuration. Raises ``OSError``, :class:`DataProcessError`,
        :class:`DiscoveryError`.
        """
        config = self.config
        self._loads = SharedLoads(config.workers)
        self._upstream = Upstream(config.timeouts, self._backend_tls)
        self._monitor = HealthMonitor(Vitals(self._upstream), config.health, self, lambda _worker: self._changed())
        self._sources = make_sources(config, self.registry)
        self.registry.listen(self._worker_came, self._worker_went, self._worker_changed)
        self.keepers = [Keeper(index, self._loads.descriptor, self) for index in range(config.workers)]
        self._control = await self._started(self._app())
        self._port = Reservation(config.host, config.port)
        self.port = self._port.port
        try:
            for source in self._sources:
                source.start()
            if config.prometheus_port is not None:
                self._listener = Listener(MetricsFront(await self._metrics_alone()), Limits())
                self.metrics_port = await self._listener.start(config.prometheus_host, config.prometheus_port)
            await asyncio.gather(*(keeper.start() for keeper in self.keepers))
        except (OSError, DataProcessError, DiscoveryError):
            await self.stop()
            raise

    async def drain(self) -> None:
        """Tell probes first, then take no new requests and let those under way finish, within the grace period."""
        self.inflight.ready = False
        self._changed()
        await asyncio.sleep(self.config.drain_settle_secs)
        self.inflight.refusing = True
        self._changed()
        try:
            async with asyncio.timeout(self.config.shutdown_grace_period_secs):
                await asyncio.gather(*(keeper.drained.wait() for keeper in self.keepers))
        except TimeoutError:
            log.warning("%d requests were cut at the end of the grace period", self.under_way)

    async def stop(self) -> None:
        """Close everything; requests still under way are cut."""
        await asyncio.gather(*(keeper.stop() for keeper in self.keepers))
        if self._listener is not None:
            await self._listener.stop()
        self._port.close()
        if self._sending is not None:
            self._sending.cancel()
        for source in self._sources:
            source.close()
        self._monitor.close()
        for control in self._controls:
            await control.stop()
        await self._upstream.close()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[refusals_answered])
        emptied = partial(self._emptied, restarted=False)
        Admin(self.registry, emptied, self._upstream, self._auth, self._load).add_routes(app)
        self._gathered = Gathered(self.keepers, self.metrics)
        self._gathered.add_routes(app)
        return app

    async def _metrics_alone(self) -> ControlPlane:
        app = web.Application()
        self._gathered.add_metrics(app)
        return await self._started(app)

    async def _started(self, app: web.Application) -> ControlPlane:
        control = ControlPlane(app)
        self._controls.append(control)
        await control.start()
        return control

    # What keepers ask for and tell.

    def greeting(self, index: int) -> list[Message]:
        """Who it is, and the fleet."""
        config = self.config.model_dump_json().encode()
        self._version += 1
        return [Setup(config, self.config.host, self.port, index, self.config.workers), self._snapshot()]

    def told(self, index: int, message: Message) -> None:
        """What a data process says."""
        now = now_seconds()
        if isinstance(message, Verdict):
            apply(self.guards, message, now)
            self._changed()
        elif isinstance(message, Rest):
            self.guards.rest_until(message.url, message.until)
            self._changed()
        elif isinstance(message, Noted):
            self._notes = message.notes
        elif isinstance(message, Suspect | Silent) and (worker := self.registry.find(message.url)) is not None:
            tell: Callable[[Worker], None] = (
                self._monitor.silent if isinstance(message, Silent) else self._monitor.suspect
            )
            tell(worker)

    def placed(self, index: int, batch: bytes) -> None:
        """One process placed requests: the others remember them too."""
        for keeper in self.keepers:
            if keeper.index != index:
                keeper.send_placements(batch)

    async def answer(self, request: Request) -> Reply:
        """A request to a data process that is the owner's to answer."""
        return await self._control.ask(request)

    def ended(self, index: int) -> None:
        """A data process is no more: what it had in flight is over."""
        self._loads.clear(index)
        self._gathered.ended(index)

    # What becomes of workers.

    def _worker_came(self, worker: Worker) -> None:
        url = worker.url
        self._slots.take(url)
        self.guards.add(url)
        self.metrics.worker_added(url)
        for name in ("token_parity", "kv_events", "loads"):
            worker.notes[name] = lambda name=name: self._notes.get(url, {}).get(name)  # type: ignore[misc]
        self._monitor.watch(worker)
        self._changed()

    def _worker_went(self, worker: Worker) -> None:
        self._monitor.unwatch(worker)
        self.guards.remove(worker.url)
        self._slots.give_back(worker.url)
        self._upstream.forget(worker)
        self.metrics.worker_removed(worker.url)
        self._changed()

    def _worker_changed(self, worker: Worker) -> None:
        self._monitor.changed(worker)
        self._changed()

    def recovered(self, worker: Worker) -> None:
        """For the health monitor."""
        self.guards.recovered(worker.url, now_seconds())
        self._changed()

    def restarted(self, worker: Worker) -> None:
        """For the health monitor."""
        self._emptied(worker.url, restarted=True)
        self.metrics.worker_restarts.inc()

    def backend_ended(self, url: str) -> None:
        """Look at a worker whose process is known to have ended."""
        if (worker := self.registry.find(url)) is not None:
            self._monitor.suspect(worker)

    def state_changed(self) -> None:
        """``inflight`` says something else."""
        self._changed()

    def _emptied(self, url: str, restarted: bool) -> None:
        for keeper in self.keepers:
            keeper.send(Emptied(url, restarted))

    def _breaker_turned(self, url: str, state: BreakerState) -> None:
        log.warning("the circuit breaker of worker %s is %s", url, state.value)
        if (series := self.metrics.worker(url)) is not None:
            series.breaker(state.value)

    def _load(self, url: str) -> int:
        slot = self._slots.of(url)
        return self._loads.total(slot).requests if slot >= 0 else 0

    def _changed(self) -> None:
        if self._sending is None:
            self._sending = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._send)

    def _send(self) -> None:
        self._sending = None
        self._version += 1
        snapshot = self._snapshot()
        for keeper in self.keepers:
            keeper.send(snapshot)

    def _snapshot(self) -> Snapshot:
        return take(self._version, self.registry, self.guards, self._slots.of, self.inflight)
