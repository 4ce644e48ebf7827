"""Headers on their way through: hop-by-hop ones stay here, everything else passes; who asked is added."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

REQUEST_ID_HEADERS = ("x-request-id", "x-correlation-id", "x-trace-id", "request-id")
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_REQUEST_ONLY = frozenset({"host", "content-length", "expect", "x-forwarded-for"})
FORWARDING = ("forwarded", "x-real-ip")


def request_id(headers: Mapping[str, str], names: Sequence[str]) -> tuple[str, str]:
    """(header name, id): what the client sent under one of ``names``, else a new one under the first of them."""
    for name in names:
        if value := headers.get(name):
            return name, value
    return names[0], uuid.uuid4().hex


def to_backend(request: web.BaseRequest, id_name: str, id_value: str) -> CIMultiDict[str]:
    """The headers to send upstream. Content-Length is left to the connection, which knows the body."""
    headers = _passed(request.headers, _REQUEST_ONLY)
    headers[id_name] = id_value
    came_through = request.headers.getall("X-Forwarded-For", [])
    headers["X-Forwarded-For"] = ", ".join([*came_through, request.remote or "unknown"])
    headers.setdefault("X-Forwarded-Proto", request.scheme)
    return headers


def to_client(upstream: CIMultiDictProxy[str], id_name: str, id_value: str) -> CIMultiDict[str]:
    """The headers to answer with."""
    headers = _passed(upstream, frozenset())
    headers.setdefault(id_name, id_value)
    return headers


def was_forwarded(headers: Mapping[str, str]) -> bool:
    """Did a proxy pass this request on?"""
    return any(name.lower() in FORWARDING or name.lower().startswith("x-forwarded-") for name in headers)


def _passed(headers: CIMultiDictProxy[str], also_dropped: frozenset[str]) -> CIMultiDict[str]:
    dropped = _HOP_BY_HOP | also_dropped
    for value in headers.getall("Connection", []):
        dropped |= {name.strip().lower() for name in value.split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
