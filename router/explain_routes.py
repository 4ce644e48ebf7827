"""``GET /router/explain/{request_id}`` and ``POST /router/simulate``: for operators only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from router.auth import Auth
from router.body import INFERENCE_ROUTES, ROUTING_KEY_HEADERS, TARGET_HEADER, read_body, read_facts
from router.errors import Refusal, unavailable, unknown_model
from router.exchange import now_seconds
from router.explain import ExplainRing, decision_json
from router.fleet.registry import Registry
from router.placement import Placement

HEADERS = (*ROUTING_KEY_HEADERS, TARGET_HEADER)  # that decide

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ExplainRoutes:
    """Looks decisions up, and makes one without sending anything."""

    def __init__(self, auth: Auth, ring: ExplainRing, placement: Placement, registry: Registry, max_body: int) -> None:
        self._auth = auth
        self._ring = ring
        self._placement = placement
        self._registry = registry
        self._max_body = max_body

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/router/explain/{request_id:.+}", self._guarded(self._explain))
        app.router.add_post("/router/simulate", self._guarded(self._simulate))

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._auth.check_admin(request)
            return await handler(request)

        return guarded

    async def _explain(self, request: web.Request) -> web.Response:
        name = request.match_info["request_id"]
        found = self._ring.find(name)
        if found is None:
            raise Refusal(404, f"Request {name!r} is not among the last ones.", param="request_id", code="not_found")
        return web.json_response(found)

    async def _simulate(self, request: web.Request) -> web.Response:
        """Where a body would go now. The query's ``path`` names its route; chat completions when there is none."""
        path = request.query.get("path", "/v1/chat/completions")
        if path not in INFERENCE_ROUTES:
            raise Refusal(400, f"path must be an inference route, got {path!r}.", param="path", code="invalid_path")
        body = await read_body(request, self._max_body)
        headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
        facts = read_facts(path, headers, body, self._placement.prompt_text, self._registry.canonical)
        facts, dossier = await self._placement.open(facts, "")
        if not self._registry.serves(facts.model):
            raise unknown_model(facts.model)
        workers = self._registry.eligible(facts.model)
        if not workers:
            raise unavailable("No healthy backend can take this request now.", code="no_healthy_backend")
        now = now_seconds()
        candidates = self._placement.candidates(workers, now, dossier)
        decision = self._placement.policy.choose(facts.route, candidates, now)
        return web.json_response(
            {
                "model": facts.model,
                "prompt_tokens": facts.route.prompt_tokens,
                "prompt_tokens_exact": dossier.tokens is not None,
                **decision_json(decision, candidates),
            }
        )
