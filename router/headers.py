"""Headers on their way through: hop-by-hop ones stay here, everything else passes; who asked is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import getrandbits

from router.http.answer import Answer
from router.http.message import Pairs, Request, fields

REQUEST_ID_HEADERS = ("x-request-id", "x-correlation-id", "x-trace-id", "request-id")
FORWARDING = ("forwarded", "via", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip")
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
NOT_ON = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-forwarded-for", b"authorization"}
_NOT_BACK = _HOP_BY_HOP | {b"content-length"}
_SERVER = b"Server: warmlane\r\n"


def request_id(headers: dict[str, str], names: list[str]) -> tuple[str, str]:
    """(header name, id): what the client sent under one of ``names``, else a new one under the first of them."""
    for name in names:
        if name in headers and (value := headers[name]):
            return name, value
    return names[0], f"{getrandbits(128):032x}"


def to_backend(request: Request, id_name: str, id_value: str) -> tuple[bytes, bytes]:
    """(header lines to send upstream, the client's authorization as a line or nothing).

    Host, length and authorization are left to the connection, which knows the worker and the body.
    """
    lines = request.memo.get(id_name)
    if lines is None:
        lines = request.memo[id_name] = _passed_on(request, id_name)
    given = request.headers.get("authorization")
    return (
        lines + f"{id_name}: {id_value}\r\n".encode("latin-1"),
        f"Authorization: {given}\r\n".encode("latin-1") if given is not None else b"",
    )


def _passed_on(request: Request, id_name: str) -> bytes:
    """The lines that do not depend on the request's id."""
    headers = request.headers
    dropped = NOT_ON | {id_name.encode("latin-1")}
    if "connection" in headers:
        dropped |= _named(headers["connection"])
    lines = [b"%b: %b\r\n" % pair for pair in request.pairs if pair[0].lower() not in dropped]
    before = headers.get("x-forwarded-for")
    came_from = request.remote or "unknown"
    through = f"{before}, {came_from}" if before else came_from
    added = f"X-Forwarded-For: {through}\r\n"
    if "x-forwarded-proto" not in headers:
        added += f"X-Forwarded-Proto: {request.scheme}\r\n"
    lines.append(added.encode("latin-1"))
    return b"".join(lines)


def to_client(answer: Answer, id_name: str, id_value: str) -> bytes:
    """The header lines to answer with; the framing is left to the connection."""
    lines = answer.memo.get(id_name)
    if lines is None:
        names = [name.lower() for name, _ in answer.pairs]
        lines = _passed_back(answer.pairs, names)
        if id_name.encode("latin-1") in names:
            return lines
        answer.memo[id_name] = lines
    return lines + f"{id_name}: {id_value}\r\n".encode("latin-1")


def _passed_back(pairs: Pairs, names: Sequence[bytes]) -> bytes:
    """``names``: of ``pairs``, in lower case."""
    dropped = _NOT_BACK
    if b"connection" in names:
        dropped = dropped | _named(fields(pairs)["connection"])
    lines = [b"%b: %b\r\n" % pair for name, pair in zip(names, pairs, strict=True) if name not in dropped]
    if b"server" not in names:
        lines.append(_SERVER)
    return b"".join(lines)


def was_forwarded(headers: Mapping[str, str]) -> bool:
    """Did a proxy pass this request on?"""
    return any(name.lower() in FORWARDING or name.lower().startswith("x-forwarded-") for name in headers)


def _named(connection: str) -> frozenset[bytes]:
    """The headers that a Connection header claims for this hop."""
    return frozenset(name.strip().lower().encode("latin-1") for name in connection.split(","))
