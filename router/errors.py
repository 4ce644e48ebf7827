"""Errors as clients see them: an OpenAI-shaped JSON body that never names a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import web

from router.http.message import Reply
from router.http.response import error_reply


class Refusal(Exception):
    """The router itself answers a request with an error. ``message`` is for the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.close = close

    def reply(self, pairs: Sequence[tuple[bytes, bytes]] = ()) -> Reply:
        """The HTTP answer, with ``pairs`` as further headers."""
        reply = error_reply(self.status, self.message, self.code, self.kind, self.param)
        retry = [] if self.retry_after is None else [(b"Retry-After", b"%d" % self.retry_after)]
        reply.pairs = [*reply.pairs, *retry, *pairs]
        reply.close = self.close
        return reply

    def response(self, headers: Mapping[str, str] | None = None) -> web.Response:
        """The HTTP answer, with ``headers`` added to it."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        response = web.Response(
            status=self.status,
            body=msgspec.json.encode({"error": error}),
            content_type="application/json",
            headers=dict(headers or {}),
        )
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(self.retry_after)
        if self.close:
            response.force_close()
        return response


def unavailable(message: str, *, code: str, retry_after: int | None = 1, close: bool = False) -> Refusal:
    """503: nothing can take the request now."""
    return Refusal(503, message, kind="service_unavailable", code=code, retry_after=retry_after, close=close)


def bad_gateway(message: str) -> Refusal:
    """502: backends were tried and none answered."""
    return Refusal(502, message, kind="bad_gateway", code="backend_unreachable")


def gateway_timeout(message: str) -> Refusal:
    """504: a backend did not answer in time."""
    return Refusal(504, message, kind="gateway_timeout", code="backend_timeout")


def unknown_model(model: str) -> Refusal:
    """404: no backend serves this model."""
    return Refusal(404, f"The model {model!r} does not exist.", param="model", code="model_not_found")
