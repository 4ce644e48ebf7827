"""Cross-origin requests of web pages: refused unless the operator names the pages' origins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ANY = "*"
_METHODS = "GET, POST, OPTIONS"
_SECONDS = "600"


class Cors:
    """``origins``: those allowed, as in ``https://chat.example.org``; ``*`` for all. None: nothing is sent."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    def headers(self, request_headers: Mapping[str, str]) -> dict[str, str]:
        """What an answer must carry so that the page may read it; empty for others.

        ``request_headers`` find names in lower case.
        """
        origin = request_headers.get("origin", "")
        if not origin or not self._origins & {origin, ANY}:
            return {}
        return {"Access-Control-Allow-Origin": ANY if ANY in self._origins else origin, "Vary": "Origin"}

    def preflight(self, method: str, request_headers: Mapping[str, str]) -> dict[str, str] | None:
        """The answer's headers when the request asks what a page may do; None when it does not, or is not allowed."""
        if method != "OPTIONS" or "access-control-request-method" not in request_headers:
            return None
        allowed = self.headers(request_headers)
        if not allowed:
            return None
        wanted = request_headers.get("access-control-request-headers", "Authorization, Content-Type")
        return {
            **allowed,
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": wanted,
            "Access-Control-Max-Age": _SECONDS,
        }
