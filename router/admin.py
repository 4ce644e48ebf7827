"""Routes for operators: the worker set, and orders to all workers at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from pydantic import ValidationError

from policies.policy import Policy
from router.auth import Auth
from router.body import read_body
from router.errors import Refusal
from router.fanout import ask_all
from router.fleet.registry import Registry
from router.fleet.worker import Health, Worker, WorkerSpec
from router.upstream import Upstream

MAX_BODY = 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """``/workers``, ``/flush_cache`` and ``/get_loads``, in the shapes that SGLang's router has."""

    def __init__(
        self, registry: Registry, policy: Policy, upstream: Upstream, auth: Auth, load: Callable[[str], int]
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._upstream = upstream
        self._auth = auth
        self._load = load

    def add_routes(self, app: web.Application) -> None:
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/workers", self._list),
            ("POST", "/workers", self._add),
            ("GET", "/workers/{id:.+}", self._get),
            ("DELETE", "/workers/{id:.+}", self._remove),
            ("POST", "/flush_cache", self._flush),
            ("GET", "/flush_cache", self._flush),
            ("GET", "/get_loads", self._loads),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, path, self._guarded(handler))
        for path in dict.fromkeys(path for _, path, _ in routes):
            app.router.add_route("*", path, self._guarded(self._wrong_method))

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._auth.check_admin(request)
            return await handler(request)

        return guarded

    async def _wrong_method(self, request: web.Request) -> web.Response:
        raise Refusal(405, f"{request.path} does not know the method {request.method}.", code="method_not_allowed")

    async def _list(self, _request: web.Request) -> web.Response:
        workers = [self._shown(worker) for worker in self._registry.all()]
        stats = {"prefill_count": 0, "decode_count": 0, "regular_count": len(workers)}
        return web.json_response({"workers": workers, "total": len(workers), "stats": stats})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._shown(self._named(request)))

    async def _add(self, request: web.Request) -> web.Response:
        try:
            spec = WorkerSpec.model_validate_json(await read_body(request, MAX_BODY))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "body"
            raise Refusal(400, f"{field}: {first['msg']}", param=field, code="invalid_worker") from None
        try:
            worker = self._registry.add(spec)
        except ValueError as error:
            raise Refusal(409, str(error), param="url", code="worker_exists") from None
        said = {
            "status": "accepted",
            "worker_id": worker.id,
            "url": worker.url,
            "location": f"/workers/{worker.id}",
            "message": "The worker gets requests as soon as its health check passes.",
        }
        return web.json_response(said, status=202, headers={"Location": f"/workers/{worker.id}"})

    async def _remove(self, request: web.Request) -> web.Response:
        worker = self._named(request)
        self._registry.remove(worker)
        said = {
            "status": "accepted",
            "worker_id": worker.id,
            "message": "The worker gets no more requests; those under way finish.",
        }
        return web.json_response(said, status=202)

    async def _flush(self, _request: web.Request) -> web.Response:
        answers = await ask_all(self._upstream, self._registry.all(), "POST", "/flush_cache")
        flushed = [answer.worker.url for answer in answers if answer.ok]
        failed = [[answer.worker.url, answer.problem] for answer in answers if not answer.ok]
        for url in flushed:
            self._policy.forget(url)
        said = {
            "message": f"Cache flushed on {len(flushed)} of {len(answers)} workers.",
            "successful": flushed,
            "failed": failed,
            "total_workers": len(answers),
            "http_workers": len(answers),
        }
        return web.json_response(said, status=502 if failed else 200)

    async def _loads(self, _request: web.Request) -> web.Response:
        answers = await ask_all(self._upstream, self._registry.all(), "GET", "/get_load")
        rows = [
            {"worker": a.worker.url, "load": _tokens(a.body) if a.ok else -1, "requests": self._load(a.worker.url)}
            for a in answers
        ]
        return web.json_response({"workers": rows, "total_workers": len(rows)})

    def _named(self, request: web.Request) -> Worker:
        name = request.match_info["id"]
        worker = self._registry.find(name)
        if worker is None:
            raise Refusal(404, f"There is no worker {name!r}.", param="id", code="worker_not_found")
        return worker

    def _shown(self, worker: Worker) -> dict[str, Any]:
        spec = worker.spec
        return {
            "id": worker.id,
            "url": worker.url,
            "model_id": next(iter(worker.names), "unknown"),
            "models": worker.names,
            "priority": spec.priority,
            "cost": spec.cost,
            "worker_type": spec.worker_type,
            "is_healthy": worker.health is Health.HEALTHY,
            "health": worker.health.value,
            "load": self._load(worker.url),
            "connection_mode": "http",
            "runtime_type": spec.runtime,
            "metadata": dict(spec.labels),
        }


def _tokens(body: bytes) -> int:
    """The tokens in use that a ``/get_load`` answer adds up to; -1 when it does not say."""
    try:
        rows = msgspec.json.decode(body)
        return sum(int(row["num_tokens"]) for row in (rows if isinstance(rows, list) else [rows]))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return -1
