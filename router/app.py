"""The application: its parts, its routes, and its life from start to stop."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import replace
from random import Random

from aiohttp import web
from aiohttp.typedefs import Handler

from policies import make_policy
from policies.cost.rates import RateBook
from router import tls
from router.admin import Admin
from router.admission import Admission
from router.auth import Auth
from router.breaker import BreakerState
from router.config import RouterConfig
from router.continuation import Continuation
from router.control import ControlPlane
from router.cors import Cors
from router.errors import Refusal
from router.exchange import now_seconds
from router.explain_routes import ExplainRoutes
from router.fleet.discovery.membership import DiscoveryError
from router.fleet.load_polls import LoadPolls
from router.fleet.registry import Registry
from router.fleet.worker import Worker
from router.fleet_info import FleetInfo
from router.front import Front, MetricsFront
from router.gateway import Gateway
from router.http.listener import Listener
from router.http.server import Limits, Service
from router.inflight import Inflight
from router.insight import Insight
from router.keys import admin_keys, load_keys
from router.metrics import Metrics
from router.parts import Alone, Parts
from router.placement import Placement
from router.probes import Probes
from router.prompt_text import PromptText
from router.protection import Protection
from router.retry_budget import RetryBudget
from router.silence import Silence
from router.silence_probes import SilenceProbes
from router.upstream import Upstream

log = logging.getLogger(__name__)

SERVER = "warmlane"


class Router:
    """A running router. Use :meth:`start`, then :meth:`drain` and :meth:`stop`. Making one raises ``ConfigError``."""

    def __init__(self, config: RouterConfig, prompt_text: PromptText | None = None, parts: Parts | None = None) -> None:
        self.config = config
        self._parts = parts = parts or Alone()
        self._tls = tls.listening(config)
        self._backend_tls = tls.towards_backends(config)
        self.registry = Registry()
        self.leases = parts.leases()
        self.inflight = Inflight()
        self.policy = parts.policy(
            make_policy(
                config.policy, prefix_bytes=config.prefix_bytes, seed=config.seed, options=config.policy_options
            )
        )
        self.metrics = Metrics(self.registry.knows, config.prometheus_duration_buckets)
        self.protection = Protection(
            Admission(parts.admission(config), now_seconds, self._shed),
            parts.guards(config, self._breaker_turned),
            RetryBudget(),
            Silence(config.first_byte_probe_secs),
        )
        self.placement = Placement(self.policy, self.leases, RateBook(), prompt_text or PromptText(), self.metrics)
        self.control: ControlPlane | None = None
        self._controls: list[ControlPlane] = []
        self._listeners: list[Listener] = []
        self.port = config.port
        self.metrics_port = config.prometheus_port

    @property
    def under_way(self) -> int:
        """Requests that are not over."""
        return self.inflight.count

    def state_changed(self) -> None:
        """``inflight`` says something else: everybody reads it."""

    async def start(self) -> None:
        """Listen, and watch the workers of the configuration. Raises ``OSError`` when a port cannot be had."""
        config = self.config
        self._upstream = Upstream(config.timeouts, self._backend_tls)
        self._monitor = self._parts.monitor(self._upstream, config.health, self)
        self._probes = SilenceProbes(
            self.protection.silence,
            self._upstream,
            self.registry.find,
            self._monitor.silent,
            config.health_check_endpoint,
            config.first_byte_probe_secs,
            now_seconds,
        )
        if config.first_byte_probe_secs:
            self._probes.start()
        loads = LoadPolls(self._upstream, self.leases, now_seconds)
        prompt_text, speeds = self.placement.prompt_text, self.placement.speeds
        self.insight = Insight(config, self._upstream, prompt_text, self.metrics, self.policy, speeds, loads)
        self.placement = replace(self.placement, exact=self.insight.exact, watchers=self.insight.watchers)
        self._sources = self._parts.sources(config, self.registry)
        self.registry.listen(self._worker_came, self._worker_went, self._worker_changed)
        probes = Probes(self.registry, self.policy, self.leases, self.inflight, self.metrics)
        try:
            self.port = await self._listen(await self._front(probes), config.host, config.port, self._tls)
            if config.prometheus_port is not None:
                metrics = await self._metrics_alone(probes)
                self.metrics_port = await self._listen(metrics, config.prometheus_host, config.prometheus_port, None)
            for source in self._sources:
                source.start()
        except (OSError, DiscoveryError):
            await self.stop()
            raise

    async def drain(self) -> None:
        """Tell probes first, then take no new requests and let those under way finish, within the grace period."""
        self.inflight.ready = False
        if self.config.drain_settle_secs:
            await asyncio.sleep(self.config.drain_settle_secs)
        self.inflight.refusing = True
        try:
            async with asyncio.timeout(self.config.shutdown_grace_period_secs):
                await self.inflight.drained()
        except TimeoutError:
            log.warning("%d requests were cut at the end of the grace period", self.inflight.count)

    def close_port(self) -> None:
        """Accept no more connections; those that are there go on."""
        for listener in self._listeners:
            listener.close()

    async def stop(self) -> None:
        """Close everything; requests still under way are cut."""
        for listener in self._listeners:
            await listener.stop()
        for control in self._controls:
            await control.stop()
        self._listeners.clear()
        self._controls.clear()
        for source in self._sources:
            source.close()
        self._monitor.close()
        self._probes.close()
        await self.insight.close()
        await self._upstream.close()

    async def _front(self, probes: Probes) -> Front:
        config = self.config
        auth = make_auth(config)
        gateway = Gateway(
            config, self.registry, self.placement, self._upstream, self.metrics, self.inflight, self._monitor.suspect,
            Random(config.seed), self.protection, auth.is_admin, auth.name,
            Continuation(self.registry, self._upstream, self.metrics) if config.resume_streams else None,
        )  # fmt: skip
        app = web.Application(middlewares=[refusals_answered])
        probes.add_routes(app)
        Admin(self.registry, self.insight.worker_emptied, self._upstream, auth, self._load).add_routes(app)
        FleetInfo(self.registry, self._upstream).add_routes(app)
        ExplainRoutes(auth, self.insight.ring, self.placement, self.registry, config.max_payload_size).add_routes(app)
        self.control = await self._control(app)
        return Front(auth, Cors(config.cors_allowed_origins), self.control, gateway, self.metrics)

    async def _metrics_alone(self, probes: Probes) -> MetricsFront:
        app = web.Application()
        probes.add_metrics(app)
        return MetricsFront(await self._control(app))

    async def _control(self, app: web.Application) -> ControlPlane:
        control = self._parts.control(app)
        self._controls.append(control)
        await control.start()
        return control

    async def _listen(self, service: Service, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """The port listened on, which differs from ``port`` when that is 0."""
        limits = Limits(body_bytes=self.config.max_payload_size)
        listener = Listener(service, limits, context)
        self._listeners.append(listener)
        return await listener.start(host, port, shared=self._parts.shares_port)

    def _worker_came(self, worker: Worker) -> None:
        self.metrics.worker_added(worker.url)
        self.protection.worker_came(worker.url)
        self._monitor.watch(worker)
        self._limit(worker)
        self.insight.worker_came(worker)

    def _worker_changed(self, worker: Worker) -> None:
        self._monitor.changed(worker)
        self._limit(worker)

    def _limit(self, worker: Worker) -> None:
        admission = self.protection.admission
        admission.worker_limits |= worker.spec.max_concurrent_requests is not None
        admission.move()

    def _worker_went(self, worker: Worker) -> None:
        self._monitor.unwatch(worker)
        self.insight.worker_went(worker)
        self.placement.forget(worker.url)
        self.protection.worker_went(worker.url)
        self._upstream.forget(worker)
        self.metrics.worker_removed(worker.url)

    def _breaker_turned(self, url: str, state: BreakerState) -> None:
        log.warning("the circuit breaker of worker %s is %s", url, state.value)
        if (series := self.metrics.worker(url)) is not None:
            series.breaker(state.value)

    def recovered(self, worker: Worker) -> None:
        """For the health monitor."""
        self.protection.guards.recovered(worker.url, now_seconds())
        self.protection.admission.move()

    def restarted(self, worker: Worker) -> None:
        """For the health monitor."""
        self.policy.forget(worker.url)
        self.insight.worker_restarted(worker)
        self.metrics.worker_restarts.inc()

    def backend_ended(self, url: str) -> None:
        """Look at a worker whose process is known to have ended: its prefixes are forgotten when it is back."""
        if (worker := self.registry.find(url)) is not None:
            self._monitor.suspect(worker)

    def _shed(self, reason: str) -> None:
        self.metrics.shed.labels(reason).inc()

    def _load(self, url: str) -> int:
        return self.leases.load(url).requests


def make_auth(config: RouterConfig) -> Auth:
    """Who may ask. Raises ``ConfigError``."""
    keys = load_keys(config.api_key, config.api_key_file)
    operators = admin_keys(config.admin_api_key, config.control_plane_api_keys)
    return Auth(keys, operators, config.metrics_public, config.control_plane_audit_enabled)


@web.middleware
async def refusals_answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals become answers; a defect says nothing of itself."""
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = refusal.response()
    except web.HTTPException:
        raise
    except Exception:
        log.exception("a defect of the router ended a request to %s", request.path)
        response = Refusal(500, "The router failed.", kind="internal_error", code="internal_error").response()
    response.headers.setdefault("Server", SERVER)
    return response
