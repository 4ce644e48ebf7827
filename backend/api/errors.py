"""Error bodies: OpenAI's routes answer in SGLang's flat shape, the native ones in an ``error`` object."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from backend.frontend.errors import RequestError

CLIENT_CLOSED_REQUEST = 499  # nginx's number: who asked wants no answer any more
RETRYABLE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


_MESSAGES_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}


class SchemaError(RequestError):
    """A body that does not have the form it should have."""


def unsupported(field: str, value: Any) -> RequestError:
    """The error for a field that Warmlane knows and cannot honour yet."""
    shown = msgspec.json.encode(value).decode()
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return RequestError(f"{field} is not supported yet (got {shown}); leave it out.", param=field)


def model_not_found(model: str, served: str) -> RequestError:
    message = f"The model {model!r} does not exist; this server serves {served!r}."
    return RequestError(message, HTTPStatus.NOT_FOUND, param="model", code="model_not_found")


def type_name(status: int) -> str:
    """``BadRequestError``, ``NotFoundError``, ``InternalServerError``..."""
    if status == CLIENT_CLOSED_REQUEST:
        return "ClientClosedRequestError"
    name = HTTPStatus(status).phrase.replace(" ", "").replace("-", "")
    return name if name.endswith("Error") else name + "Error"


def openai_body(error: RequestError) -> dict[str, Any]:
    """The body for ``/v1`` routes; the openai SDK reads message, type, param and code from it."""
    if error.code == "model_not_found":
        return {
            "error": {
                "message": error.message,
                "type": "invalid_request_error",
                "param": error.param,
                "code": error.code,
            }
        }
    kind = "Bad Request" if isinstance(error, SchemaError) else type_name(error.status)
    return {"object": "error", "message": error.message, "type": kind, "param": error.param, "code": error.status}


def native_body(error: RequestError) -> dict[str, Any]:
    if isinstance(error, SchemaError):
        return {"error": error.message}
    told = {"message": error.message, "type": type_name(error.status), "code": error.status}
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:  # SGLang's shape for them is flat, clients look for either
        return {"object": "error", **told, "error": told}
    return {"error": told}


def stream_error(error: RequestError) -> dict[str, Any]:
    """The event that ends a stream which has already begun."""
    return {
        "error": {
            "message": error.message,
            "type": type_name(error.status),
            "param": error.param,
            "code": error.status,
            "retryable": error.status in RETRYABLE,
        }
    }


def messages_body(error: RequestError) -> dict[str, Any]:
    """Anthropic's shape, as a body and as an event."""
    kind = _MESSAGES_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def responses_event(error: RequestError) -> dict[str, Any]:
    """The responses API's event for an error after the beginning."""
    return {"type": "error", "code": str(error.status), "message": error.message, "param": error.param}


def error_response(error: RequestError, path: str) -> web.Response:
    """The whole answer, in the shape that the clients of ``path`` expect."""
    if path.startswith("/v1/messages"):
        body = messages_body(error)
    else:
        body = openai_body(error) if path.startswith("/v1/") else native_body(error)
    response = json_response(body, error.status)
    if error.status in RETRYABLE:
        response.headers["Retry-After"] = "1"
    return response


def json_response(body: Any, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
