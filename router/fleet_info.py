"""Routes that speak for the whole fleet: models, information, aborts."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from router.body import read_body
from router.errors import unavailable, unknown_model
from router.fanout import ask_all
from router.fleet.registry import Registry
from router.upstream import Upstream

MAX_BODY = 1024 * 1024
_SECRETS = frozenset({"api_key", "admin_api_key", "ssl_keyfile_password"})  # SGLang's /server_info tells its flags


class FleetInfo:
    """Answers made of what all healthy workers say. Workers are named by id, never by address."""

    def __init__(self, registry: Registry, upstream: Upstream) -> None:
        self._registry = registry
        self._upstream = upstream

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        for path in ("/get_model_info", "/model_info", "/get_server_info", "/server_info"):
            app.router.add_get(path, self._info)
        app.router.add_post("/abort_request", self._abort)

    async def _models(self, _request: web.Request) -> web.Response:
        cards = list(self._registry.model_cards().values())
        return web.json_response({"object": "list", "data": cards})

    async def _model(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        card = self._registry.model_cards().get(model)
        if card is None:
            raise unknown_model(model)
        return web.json_response(card)

    async def _info(self, request: web.Request) -> web.Response:
        """The first worker's fields, as one server would answer, and each worker's under ``workers``."""
        answers = await ask_all(self._upstream, self._registry.healthy(), "GET", request.path)
        told: list[dict[str, Any]] = []
        for answer in answers:
            if answer.ok and (fields := _object(answer.body)) is not None:
                kept = {name: value for name, value in fields.items() if name not in _SECRETS}
                told.append({"worker_id": answer.worker.id, **kept})
        if not told:
            raise unavailable("No healthy backend could tell.", code="no_healthy_backend")
        first = {key: value for key, value in told[0].items() if key != "worker_id"}
        return web.json_response({**first, "workers": told})

    async def _abort(self, request: web.Request) -> web.Response:
        """The router does not know who runs a request id: all are told."""
        body = await read_body(request, MAX_BODY)
        await ask_all(self._upstream, self._registry.healthy(), "POST", "/abort_request", body)
        return web.Response()


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
