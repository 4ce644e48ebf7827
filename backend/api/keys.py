"""Who may ask: ``--api-key`` opens every route but the probes, ``--admin-api-key`` those that steer the server.

As in SGLang, an admin key replaces the other one on steering routes: whoever may generate may not pause everybody. It
opens the other routes as well, so that a router needs only one key for a backend.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from backend.api.context import CONTEXT
from backend.config import ServerArgs
from backend.frontend.errors import RequestError

# Probes and scrapers have no key.
OPEN_PATHS = frozenset({"/health", "/health_generate", "/ready", "/ping", "/liveness", "/metrics"})
STEERING_PATHS = frozenset(
    {
        "/flush_cache",
        "/abort_request",
        "/pause_generation",
        "/continue_generation",
        "/start_profile",
        "/stop_profile",
    }
)


@web.middleware
async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raise :class:`RequestError` (401) for a request without a key that its route takes."""
    name, keys = _wanted(request.path, request.app[CONTEXT].args)
    if keys and not any(_bears(request, key) for key in keys):
        message = f"The {name} is missing or wrong: send it as 'Authorization: Bearer KEY' (or 'x-api-key: KEY')."
        raise RequestError(message, HTTPStatus.UNAUTHORIZED)
    return await handler(request)


def _wanted(path: str, args: ServerArgs) -> tuple[str, tuple[str, ...]]:
    """What ``path`` asks for, and the keys that it takes; none when everybody may ask."""
    admin = () if args.admin_api_key is None else (args.admin_api_key,)
    if path in STEERING_PATHS and admin:
        return "admin API key", admin
    if path in OPEN_PATHS or args.api_key is None:
        return "", ()
    return "API key", (args.api_key, *admin)


def _bears(request: web.Request, key: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = request.headers.get("x-api-key", "")  # what Anthropic's clients send
    return hmac.compare_digest(given.strip().encode(errors="surrogateescape"), key.encode())
