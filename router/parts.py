"""The parts of a router that differ between one process that does everything and one of several."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from policies.cost.leases import LeaseBook
from policies.policy import Policy
from router.config import AdmissionSettings, HealthSettings, RouterConfig
from router.control import ControlPlane
from router.fleet.discovery.sources import Source, make_sources
from router.fleet.health import HealthMonitor, Listener
from router.fleet.registry import Registry
from router.fleet.vitals import Vitals
from router.fleet.worker import Worker
from router.guards import Changed, Guards
from router.upstream import Upstream


class Monitor(Protocol):
    """Who looks after the workers' health."""

    def watch(self, worker: Worker) -> None: ...

    def unwatch(self, worker: Worker) -> None: ...

    def changed(self, worker: Worker) -> None: ...

    def suspect(self, worker: Worker) -> None: ...

    def silent(self, worker: Worker) -> None: ...

    def close(self) -> None: ...


class Parts(Protocol):
    """Makes them. ``shares_port``: other processes listen on the same one."""

    shares_port: bool

    def leases(self) -> LeaseBook: ...

    def policy(self, policy: Policy) -> Policy: ...

    def guards(self, config: RouterConfig, changed: Changed) -> Guards: ...

    def admission(self, config: RouterConfig) -> AdmissionSettings: ...

    def monitor(self, upstream: Upstream, settings: HealthSettings, listener: Listener) -> Monitor: ...

    def sources(self, config: RouterConfig, registry: Registry) -> list[Source]: ...

    def control(self, app: web.Application) -> ControlPlane: ...


class Alone(Parts):
    """One process has them all."""

    shares_port = False

    def leases(self) -> LeaseBook:
        return LeaseBook()

    def policy(self, policy: Policy) -> Policy:
        return policy

    def guards(self, config: RouterConfig, changed: Changed) -> Guards:
        return Guards(config.breaker, changed)

    def admission(self, config: RouterConfig) -> AdmissionSettings:
        return config.admission

    def monitor(self, upstream: Upstream, settings: HealthSettings, listener: Listener) -> Monitor:
        return HealthMonitor(Vitals(upstream), settings, listener)

    def sources(self, config: RouterConfig, registry: Registry) -> list[Source]:
        return make_sources(config, registry)

    def control(self, app: web.Application) -> ControlPlane:
        return ControlPlane(app)
