"""Who may ask: a key on every route but the probes when one is set; admin routes for operators only."""

from __future__ import annotations

import hmac
import ipaddress

from aiohttp import web

from router.errors import Refusal
from router.headers import was_forwarded

PROBES = frozenset({"/liveness", "/readiness", "/health"})


class Auth:
    """``api_key`` guards all routes but the probes; ``admin_api_key`` the admin routes."""

    def __init__(self, api_key: str | None, admin_api_key: str | None) -> None:
        self._api_key = api_key
        self._admin_api_key = admin_api_key

    def check(self, request: web.Request) -> None:
        """Raise :class:`Refusal` (401) unless the request carries the key, where one is needed."""
        if self._api_key is None or (request.path in PROBES and request.method in ("GET", "HEAD")):
            return
        if not (_bears(request, self._api_key) or (self._admin_api_key and _bears(request, self._admin_api_key))):
            raise Refusal(401, "A valid API key is needed (Authorization: Bearer KEY).", code="invalid_api_key")

    def check_admin(self, request: web.Request) -> None:
        """Raise :class:`Refusal` (401, 403) unless an operator asks.

        Without an admin key that is a caller on this machine whose request came through no proxy and no web page.
        """
        if self._admin_api_key is not None:
            if not _bears(request, self._admin_api_key):
                raise Refusal(401, "The admin key is needed (Authorization: Bearer KEY).", code="invalid_api_key")
        elif not _is_loopback(request) or was_forwarded(request.headers) or "Origin" in request.headers:
            raise Refusal(
                403,
                "Admin routes answer only direct callers on the router's own machine; set --admin-api-key for others.",
                kind="permission_error",
                code="admin_only",
            )


def _bears(request: web.Request, key: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())


def _is_loopback(request: web.Request) -> bool:
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
