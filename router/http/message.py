"""Requests and replies, and their heads as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

Pairs = list[tuple[bytes, bytes]]  # header names and values as they came


class Request:
    """A client's request. ``headers`` has lower-case names; values of repeated ones are joined with commas.

    ``memo``: what was worked out from the head, by name; it holds for all requests with this head, whatever its length.
    """

    __slots__ = (
        "body", "headers", "keep_alive", "memo", "method", "pairs", "path", "remote", "scheme", "target", "version",
    )  # fmt: skip

    def __init__(
        self, method: str, target: str, version: str, pairs: Pairs, headers: dict[str, str], remote: str, scheme: str
    ) -> None:
        self.method = method
        self.target = target  # path and query as they came
        self.path = target.partition("?")[0]
        self.version = version
        self.pairs = pairs
        self.headers = headers
        self.remote = remote
        self.scheme = scheme
        self.memo: dict[str, bytes] = {}
        self.body = b""
        self.keep_alive = True

    def again(self, body: bytes, length: int) -> Request:
        """A request with this head, whose length was left out, and ``body``, which will have ``length`` bytes."""
        digits = b"%d" % length
        pairs = [*self.pairs, (b"Content-Length", digits)]
        headers = {**self.headers, "content-length": digits.decode("ascii")}
        request = Request(self.method, self.target, self.version, pairs, headers, self.remote, self.scheme)
        request.memo, request.keep_alive, request.body = self.memo, self.keep_alive, body
        return request


@dataclass(slots=True)
class Reply:
    """A whole answer. The connection adds its length and what concerns the connection."""

    status: int
    body: bytes = b""
    pairs: Sequence[tuple[bytes, bytes]] = ()
    lines: bytes = b""  # more headers, ready to be sent
    reason: bytes | None = None
    close: bool = False


def fields(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name."""
    pairs = list(pairs)
    found = {raw.decode("latin-1").lower(): value.decode("latin-1") for raw, value in pairs}
    return found if len(found) == len(pairs) else _joined(pairs)


def without_length(pairs: Pairs) -> Pairs:
    """The same headers but for Content-Length."""
    return [pair for pair in pairs if pair[0].lower() != b"content-length"]


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in pairs:
        name = raw.decode("latin-1").lower()
        text = value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def block(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header lines."""
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs])


def status_line(status: int, reason: bytes | None = None) -> bytes:
    """The first line of an answer; without a reason the usual one."""
    if reason is None or _USUAL.get(status) == reason:
        return _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def bodiless(method: str, status: int) -> bool:
    """Has an answer no body, whatever its head says?"""
    return method == "HEAD" or status in (204, 304)


_USUAL = {status.value: status.phrase.encode() for status in HTTPStatus}
_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _USUAL.items()}
