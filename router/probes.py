"""Routes that load balancers and Prometheus ask: liveness, readiness, metrics."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from policies.cost.leases import LeaseBook
from policies.policy import Policy
from router.exposition import Gauges
from router.fleet.registry import Registry
from router.fleet.worker import Health
from router.inflight import Inflight
from router.metrics import Metrics

Row = tuple[str, str, dict[str, str], float]


class Probes:
    """``/liveness``, ``/readiness``, ``/health`` and ``/metrics``."""

    def __init__(
        self, registry: Registry, policy: Policy, leases: LeaseBook, inflight: Inflight, metrics: Metrics
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._leases = leases
        self._inflight = inflight
        self._metrics = metrics
        metrics.registry.register(Gauges(self._gauges))

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/liveness", self._liveness)
        app.router.add_get("/readiness", self._readiness)
        app.router.add_get("/health", self._readiness)
        self.add_metrics(app)

    def add_metrics(self, app: web.Application) -> None:
        app.router.add_get("/metrics", self._exposition)

    async def _liveness(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readiness(self, _request: web.Request) -> web.Response:
        healthy, total = len(self._registry.healthy()), len(self._registry.all())
        if not self._inflight.ready:
            status = "draining"
        elif self._inflight.starting:
            status = "starting"
        else:
            status = "ready" if healthy else "no healthy worker"
        counts = {"status": status, "healthy_workers": healthy, "total_workers": total}
        return web.json_response(counts, status=200 if status == "ready" else 503)

    async def _exposition(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _gauges(self) -> Iterable[Row]:
        yield "smg_http_connections_active", "Requests under way", {}, self._inflight.count
        yield "warmlane_draining", "1 while the router shuts down", {}, float(not self._inflight.ready)
        workers = self._registry.all()
        yield "smg_worker_pool_size", "Workers in the fleet", {}, len(workers)
        for worker in workers:
            labels = {"worker": worker.url}
            load = self._leases.load(worker.url)
            yield "smg_worker_health", "1 when well", labels, float(worker.health is Health.HEALTHY)
            yield "smg_worker_requests_active", "Requests sent and not finished", labels, load.requests
            yield "warmlane_worker_prefill_tokens", "Uncached tokens before their first", labels, load.prefill_tokens
        for name, value in self._policy.stats().items():
            yield f"warmlane_{name}", "State of the policy", {}, value
