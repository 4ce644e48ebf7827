"""Routes for operators: the worker set, and orders to all workers at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from router.auth import Auth
from router.errors import Refusal
from router.fanout import ask_all
from router.fleet.registry import Registry
from router.upstream import Upstream
from router.worker_routes import WorkerRoutes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The routes of workers, ``/flush_cache`` and ``/get_loads``, in the shapes that SGLang's router has."""

    def __init__(
        self,
        registry: Registry,
        forget: Callable[[str], None],
        upstream: Upstream,
        auth: Auth,
        load: Callable[[str], int],
    ) -> None:
        """``forget`` is told of each worker whose cache was emptied."""
        self._registry = registry
        self._forget = forget
        self._upstream = upstream
        self._auth = auth
        self._load = load

    def add_routes(self, app: web.Application) -> None:
        workers = WorkerRoutes(self._registry, self._load)
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/workers", workers.listing),
            ("POST", "/workers", workers.add),
            ("POST", "/workers/{id:.+}/drain", workers.drain),
            ("POST", "/workers/{id:.+}/resume", workers.resume),
            ("GET", "/workers/{id:.+}", workers.one),
            ("PUT", "/workers/{id:.+}", workers.change),
            ("DELETE", "/workers/{id:.+}", workers.remove),
            ("POST", "/add_worker", workers.old_add),
            ("POST", "/remove_worker", workers.old_remove),
            ("GET", "/list_workers", workers.old_listing),
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

    async def _flush(self, _request: web.Request) -> web.Response:
        answers = await ask_all(self._upstream, self._registry.all(), "POST", "/flush_cache")
        flushed = [answer.worker.url for answer in answers if answer.ok]
        failed = [[answer.worker.url, answer.problem] for answer in answers if not answer.ok]
        for url in flushed:
            self._forget(url)
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


def _tokens(body: bytes) -> int:
    """The tokens in use that a ``/get_load`` answer adds up to; -1 when it does not say."""
    try:
        rows = msgspec.json.decode(body)
        return sum(int(row["num_tokens"]) for row in (rows if isinstance(rows, list) else [rows]))
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError):
        return -1
