"""Errors as clients see them: a JSON body in OpenAI's shape, or Anthropic's, that never names a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import web

from router.http.message import Reply
from router.http.response import JSON, error_reply

MESSAGES = "/v1/messages"  # and what is below: Anthropic's clients ask there
_MESSAGES_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


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

    def reply(self, pairs: Sequence[tuple[bytes, bytes]] = (), *, path: str = "") -> Reply:
        """The HTTP answer as the clients of ``path`` expect it, with ``pairs`` as further headers."""
        if path.startswith(MESSAGES):
            reply = Reply(self.status, msgspec.json.encode(self._messages_body()), [JSON])
        else:
            reply = error_reply(self.status, self.message, self.code, self.kind, self.param)
        retry = [] if self.retry_after is None else [(b"Retry-After", b"%d" % self.retry_after)]
        reply.pairs = [*reply.pairs, *retry, *pairs]
        reply.close = self.close
        return reply

    def _messages_body(self) -> dict[str, object]:
        other = "invalid_request_error" if self.status < 500 else "api_error"
        return {"type": "error", "error": {"type": _MESSAGES_KINDS.get(self.status, other), "message": self.message}}

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
