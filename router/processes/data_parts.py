"""The parts of a data process that belong to the owner: each asks it, tells it, or shows what it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from aiohttp import web

from policies.cost.leases import LeaseBook
from policies.policy import Policy
from router.config import AdmissionSettings, HealthSettings, RouterConfig
from router.control import ControlPlane
from router.fleet.discovery.sources import Source
from router.fleet.health import Listener
from router.fleet.registry import Registry
from router.fleet.worker import Worker, WorkerSpec
from router.guards import Changed, Guards
from router.http.message import Reply, Request
from router.parts import Monitor, Parts
from router.processes.channel import Channel
from router.processes.guard_mirror import GuardMirror
from router.processes.messages import Silent, Suspect
from router.processes.shared_leases import SharedLeases
from router.processes.shared_load import SharedLoads
from router.processes.shared_policy import SharedPolicy
from router.upstream import Upstream

OWNERS = ("/workers", "/add_worker", "/remove_worker", "/list_workers", "/flush_cache", "/get_loads", "/metrics")
EXPLAIN = "/router/explain/"
NOT_FOUND = 404


class DataParts(Parts):
    """Those of process ``index`` of ``processes``. ``follow`` is called once the router listens."""

    shares_port = True

    def __init__(
        self, channel: Channel, shared: SharedLoads, index: int, processes: int, follow: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._shared = shared
        self._index = index
        self._processes = processes
        self._follow = follow

    def leases(self) -> LeaseBook:
        return SharedLeases(self._shared, self._index)

    def policy(self, policy: Policy) -> Policy:
        return SharedPolicy(policy, self._channel.send_placements)

    def guards(self, config: RouterConfig, changed: Changed) -> Guards:
        return GuardMirror(config.breaker, self._channel.send)

    def admission(self, config: RouterConfig) -> AdmissionSettings:
        return part_of(config.admission, self._index, self._processes)

    def monitor(self, upstream: Upstream, settings: HealthSettings, listener: Listener) -> Monitor:
        return OwnersMonitor(self._channel)

    def sources(self, config: RouterConfig, registry: Registry) -> list[Source]:
        return [OwnersFleet(self._follow)]

    def control(self, app: web.Application) -> ControlPlane:
        return SharedControl(app, self._channel)


class OwnersMonitor(Monitor):
    """The owner checks the workers; it is told what requests showed."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def watch(self, worker: Worker) -> None:
        """The owner does."""

    def unwatch(self, worker: Worker) -> None:
        """The owner does."""

    def changed(self, worker: Worker) -> None:
        """The owner sees to it."""

    def suspect(self, worker: Worker) -> None:
        self._channel.send(Suspect(worker.url))

    def silent(self, worker: Worker) -> None:
        self._channel.send(Silent(worker.url))

    def close(self) -> None:
        """Nothing runs here."""


class OwnersFleet(Source):
    """Workers come with the owner's snapshots."""

    def __init__(self, follow: Callable[[], None]) -> None:
        self._follow = follow

    def start(self) -> None:
        self._follow()

    def close(self) -> None:
        """Snapshots end with the channel."""


class SharedControl(ControlPlane):
    """Answers what every process knows, and hands over to the owner what changes or sums up the whole."""

    def __init__(self, app: web.Application, channel: Channel) -> None:
        super().__init__(app)
        self._channel = channel

    async def ask(self, request: Request) -> Reply:
        path = unquote(request.path)
        if path in OWNERS or path.startswith("/workers/"):
            return await self._channel.ask(request)
        reply = await super().ask(request)
        if reply.status == NOT_FOUND and path.startswith(EXPLAIN):
            return await self._channel.ask(request)
        return reply

    async def ask_here(self, request: Request) -> Reply:
        """What this process knows itself."""
        return await super().ask(request)


def part_of(settings: AdmissionSettings, index: int, processes: int) -> AdmissionSettings:
    """One process's part of the limits, so that all of them together keep to them."""

    def count(limit: int | None) -> int | None:
        return limit and _part(limit, index, processes)

    def rate(limit: float | None) -> float | None:
        return limit and limit / processes

    return replace(
        settings,
        requests=count(settings.requests),
        requests_per_key=count(settings.requests_per_key),
        requests_per_worker=count(settings.requests_per_worker),
        queue_size=count(settings.queue_size) or 0,
        request_rate=rate(settings.request_rate),
        token_rate=rate(settings.token_rate),
        request_rate_per_key=rate(settings.request_rate_per_key),
        token_rate_per_key=rate(settings.token_rate_per_key),
    )


def worker_part(spec: WorkerSpec, index: int, processes: int) -> WorkerSpec:
    """``spec`` with one process's part of the worker's own limit."""
    limit = spec.max_concurrent_requests
    if limit is None:
        return spec
    return spec.model_copy(update={"max_concurrent_requests": _part(limit, index, processes)})


def _part(limit: int, index: int, processes: int) -> int:
    return limit // processes + (index < limit % processes)
