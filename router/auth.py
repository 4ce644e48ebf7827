"""Who may ask: a key on every route but the probes when one is set; admin routes for operators only."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from typing import Protocol

from router.errors import Refusal
from router.headers import was_forwarded
from router.keys import Keys

log = logging.getLogger(__name__)

PROBES = frozenset({"/liveness", "/readiness", "/health"})
METRICS = "/metrics"


class Asked(Protocol):
    """What is looked at of a request. ``headers`` find names in lower case."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def remote(self) -> str | None: ...


class Auth:
    """``keys`` guard all routes but the probes, ``admin_keys`` the admin routes and open the others too."""

    def __init__(self, keys: Keys, admin_keys: Keys, metrics_public: bool = False, audit: bool = False) -> None:
        self._keys = keys
        self._admin_keys = admin_keys
        self._audit = audit
        self._open = PROBES | {METRICS} if metrics_public else PROBES

    def check(self, request: Asked) -> None:
        """Raise :class:`Refusal` (401) unless the request carries the key, where one is needed."""
        if not self._keys or (request.path in self._open and request.method in ("GET", "HEAD")):
            return
        given = _authorization(request)
        if self._keys.name(given) is None and self._admin_keys.name(given) is None:
            raise Refusal(401, "A valid API key is needed (Authorization: Bearer KEY).", code="invalid_api_key")

    def name(self, request: Asked) -> str:
        """Whose request it is, for limits of each key; empty when keys are not asked for."""
        return (self._keys.name(_authorization(request)) or "admin") if self._keys else ""

    def is_admin(self, request: Asked) -> bool:
        """Would :meth:`check_admin` let this request pass?"""
        try:
            self.check_admin(request)
        except Refusal:
            return False
        return True

    def check_admin(self, request: Asked) -> None:
        """Raise :class:`Refusal` (401, 403) unless an operator asks.

        Without an admin key that is a caller on this machine whose request came through no proxy and no web page.
        """
        if self._admin_keys:
            if self._admin_keys.name(_authorization(request)) is None:
                raise Refusal(401, "The admin key is needed (Authorization: Bearer KEY).", code="invalid_api_key")
        elif not _is_loopback(request) or was_forwarded(request.headers) or _from_page(request.headers):
            raise Refusal(
                403,
                "Admin routes answer only direct callers on the router's own machine; set --admin-api-key for others.",
                kind="permission_error",
                code="admin_only",
            )
        if self._audit:
            who = self._admin_keys.name(_authorization(request)) or "local caller"
            log.info("admin: %s %s by %s from %s", request.method, request.path, who, request.remote)


def _authorization(request: Asked) -> str:
    return request.headers.get("authorization", "")


def _from_page(headers: Mapping[str, str]) -> bool:
    """Did a web page send it? Browsers say so, of a form and of a picture's address too; none: somebody typed it."""
    return "origin" in headers or headers.get("sec-fetch-site", "none") != "none"


def _is_loopback(request: Asked) -> bool:
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
