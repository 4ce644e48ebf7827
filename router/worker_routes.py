"""Routes about the set of workers: ``/workers`` as SGLang's router has it, and the three older routes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from aiohttp import web
from pydantic import ValidationError

from router.body import read_body
from router.errors import Refusal
from router.fleet.registry import LimitError, Registry
from router.fleet.worker import Health, Worker, WorkerChange, WorkerSpec, worker_url

MAX_BODY = 1024 * 1024
Body = TypeVar("Body", WorkerSpec, WorkerChange)


class WorkerRoutes:
    """Look at workers, add, change, drain and remove them."""

    def __init__(self, registry: Registry, load: Callable[[str], int]) -> None:
        self._registry = registry
        self._load = load

    async def listing(self, _request: web.Request) -> web.Response:
        workers = [self._shown(worker) for worker in self._registry.all()]
        stats = {"prefill_count": 0, "decode_count": 0, "regular_count": len(workers)}
        return web.json_response({"workers": workers, "total": len(workers), "stats": stats})

    async def one(self, request: web.Request) -> web.Response:
        return web.json_response(self._shown(self._named(request)))

    async def add(self, request: web.Request) -> web.Response:
        worker = self._add(_valid(WorkerSpec, await read_body(request, MAX_BODY)))
        return _accepted(worker, "The worker gets requests as soon as its health check passes.", url=worker.url)

    async def change(self, request: web.Request) -> web.Response:
        """Fields that are not named stay as they are."""
        worker = self._named(request)
        change = _valid(WorkerChange, await read_body(request, MAX_BODY))
        try:
            self._registry.change(worker, worker.spec.model_copy(update=change.model_dump(exclude_unset=True)))
        except LimitError as error:
            raise _limit_refused(error) from None
        return _accepted(worker, "The worker was changed.")

    async def remove(self, request: web.Request) -> web.Response:
        worker = self._named(request)
        self._registry.remove(worker)
        return _accepted(worker, "The worker gets no more requests; those under way finish.")

    async def drain(self, request: web.Request) -> web.Response:
        """No new requests, but it stays in the list: its load shows when it is empty."""
        worker = self._named(request)
        self._registry.drain(worker, True)
        return _accepted(worker, "The worker gets no new requests.", load=self._load(worker.url))

    async def resume(self, request: web.Request) -> web.Response:
        worker = self._named(request)
        self._registry.drain(worker, False)
        return _accepted(worker, "The worker gets requests again.", load=self._load(worker.url))

    async def old_add(self, request: web.Request) -> web.Response:
        """``POST /add_worker?url=...``"""
        try:
            spec = WorkerSpec(url=_url(request))
        except ValidationError as error:
            raise _refused(error) from None
        return web.Response(text=f"Successfully added worker: {self._add(spec).url}")

    async def old_remove(self, request: web.Request) -> web.Response:
        """``POST /remove_worker?url=...``"""
        worker = self._find(_url(request))
        self._registry.remove(worker)
        return web.Response(text=f"Successfully removed worker: {worker.url}")

    async def old_listing(self, _request: web.Request) -> web.Response:
        return web.json_response({"urls": [worker.url for worker in self._registry.all()]})

    def _add(self, spec: WorkerSpec) -> Worker:
        try:
            return self._registry.add(spec)
        except LimitError as error:
            raise _limit_refused(error) from None
        except ValueError as error:
            raise Refusal(409, str(error), param="url", code="worker_exists") from None

    def _named(self, request: web.Request) -> Worker:
        return self._find(request.match_info["id"])

    def _find(self, name: str) -> Worker:
        worker = self._registry.find(name) or self._registry.find(_normal(name))
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
            "problem": worker.problem or None,
            "draining": worker.draining,
            "load": self._load(worker.url),
            "connection_mode": "http",
            "runtime_type": spec.runtime,
            "metadata": dict(spec.labels),
            **{name: read() for name, read in worker.notes.items()},
        }


def _accepted(worker: Worker, message: str, **more: Any) -> web.Response:
    location = f"/workers/{worker.id}"
    said = {"status": "accepted", "worker_id": worker.id, "location": location, "message": message, **more}
    return web.json_response(said, status=202, headers={"Location": location})


def _valid(kind: type[Body], body: bytes) -> Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> Refusal:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "body"
    return Refusal(400, f"{field}: {first['msg']}", param=field, code="invalid_worker")


def _normal(name: str) -> str:
    """An address as the registry knows it: who added ``HOST:PORT`` may ask for it so."""
    with suppress(ValueError):
        return worker_url(name)
    return name


def _limit_refused(error: LimitError) -> Refusal:
    field = "max_concurrent_requests"
    return Refusal(400, f"{field}: {error}", param=field, code="invalid_worker")


def _url(request: web.Request) -> str:
    url = request.query.get("url", "")
    if not url:
        raise Refusal(400, "The query needs url=ADDRESS.", param="url", code="invalid_worker")
    return url
