"""Requests out of a client's bytes: llhttp does the framing; this adds the limits and what a proxy must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from httptools import HttpParserUpgrade, HttpRequestParser

from router.http.message import Pairs, Reply, Request, fields, without_length
from router.http.repeated import Repeated
from router.http.response import malformed

LONG = 16384  # bytes: of longer pieces the parser gets the head alone
END = b"\r\n\r\n"  # of a head
REPEATED = frozenset({"host", "content-length", "transfer-encoding"})  # headers that may stand once


class Refused(Exception):
    """The request is answered with ``reply`` and the connection closed."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Intake:
    """Reads one request after the other. ``feed`` raises :class:`Refused` or an error of the parser.

    ``on_head`` gets each request without its body, ``on_whole`` with it.
    """

    def __init__(
        self,
        head_bytes: int,
        body_bytes: int,
        on_head: Callable[[Request], None],
        on_whole: Callable[[Request], None],
        remote: str,
        scheme: str,
    ) -> None:
        self._max_head = head_bytes
        self._max_body = body_bytes
        self._on_head = on_head
        self._on_whole = on_whole
        self._remote = remote
        self._scheme = scheme
        self.in_head = False
        self.begun = 0.0  # when the head that is being read began; the connection's to use
        self._request: Request | None = None  # its head is known, its body is being read
        self._url = b""
        self._pairs: Pairs = []
        self._chunks: list[bytes | memoryview] = []
        self._size = 0
        self._length = 0
        self._left = 0  # of a body whose rest goes past the parser
        self._head_size = 0
        self._stalled = 0
        self._progress = False
        self._body_follows = False  # a change of protocols was declined, and a body is to come
        self._first: Request | None = None  # that was whole in the piece that is being read
        self._last: tuple[Repeated, Request] | None = None  # of a request that began with a piece
        self._parser = HttpRequestParser(self)

    @property
    def in_body(self) -> bool:
        return self._request is not None

    def feed(self, data: bytes) -> None:
        """The next bytes of the connection."""
        if self._last is not None and not self.in_head and self._request is None:
            repeated, like = self._last
            if self._comes_again(data, repeated, like):
                return
        view = memoryview(data)
        at = 0
        while at < len(data):
            if self._left:
                at += self._rest_of_body(data, view[at : at + self._left])
                continue
            at += self._parse(view[at : self._stop(data, at)])
            if self._request is not None and not self._left:  # what is missing goes past the parser
                self._left = max(0, self._length - self._size)

    def _comes_again(self, data: bytes, repeated: Repeated, like: Request) -> bool:
        """Whether ``data`` was a request with the head of ``like``, or the beginning of one."""
        start, length = repeated.split(data)
        missing = length - (len(data) - start)
        if not start or missing < 0 or length > self._max_body:
            return False
        request = like.again(b"" if missing else data[start:], length)
        self._on_head(request)
        if missing:
            self._expect_body(request, length)
            self._left = missing
            if start < len(data):
                self._chunks.append(memoryview(data)[start:])
        else:
            self._on_whole(request)
        return True

    def _stop(self, data: bytes, at: int) -> int:
        """Up to where ``data`` goes to the parser at once: of a long piece a head alone, as a body need not be parsed.

        Not more than a head may have, so that one without an end is noticed before it is large.
        """
        most = at + self._max_head
        if self._request is None and len(data) - at > LONG:
            end = data.find(END, at, most)
            return end + len(END) if end >= 0 else most
        return most

    def _parse(self, data: memoryview) -> int:
        """How much of ``data`` was read: all, unless a change of protocols was declined, behind which HTTP goes on."""
        self._progress = False
        self._first = None
        begins = not self.in_head and self._request is None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._parser = HttpRequestParser(self)
            if self._body_follows:  # which the parser would take for the other protocol
                self._body_follows = False
                self._left = self._length
            read: int = upgrade.args[0]
            return read
        if not self._progress:
            self._count_stalled(len(data))
        if begins and (first := self._begun_with()) is not None:
            self._keep(bytes(data), first)
        self._first = None
        return len(data)

    def _begun_with(self) -> Request | None:
        # Apart: where the name was set to None, compiled code takes it to stay so.
        return self._first or self._request

    def _keep(self, data: bytes, request: Request) -> None:
        """``data`` began with ``request``: when it was nothing else, the next one may come with the same head."""
        whole = request is not self._request
        here = len(request.body) if whole else self._size
        repeated = Repeated.of(data, here, here if whole else self._length) if request.keep_alive else None
        if repeated is not None:
            like = request.again(b"", 0)
            like.pairs = without_length(request.pairs)
            self._last = repeated, like

    def _rest_of_body(self, data: bytes, piece: memoryview) -> int:
        """Collect what is missing of a body: ``piece``, which is of ``data``. Returns its length."""
        size = len(piece)
        self._chunks.append(data if size == len(data) else piece)
        self._left -= size
        if not self._left and (request := self._request) is not None:
            self._parser = HttpRequestParser(self)  # the one that read the head waits for the body
            self._finish(request)
        return size

    def _count_stalled(self, size: int) -> None:
        """Bytes that make no whole header, piece of body or chunk (a long trailer, chunk extension, or header)."""
        self._stalled += size
        if self._stalled > self._max_head:
            raise Refused(_head_too_large())

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.in_head = True
        self._url = b""
        self._pairs = []
        self._head_size = self._stalled = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._progress = True
        self._head_size += len(url)
        if self._head_size > self._max_head:
            raise Refused(_head_too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._progress = True
        size = self._head_size = self._head_size + len(name) + len(value) + 4
        if size > self._max_head:
            raise Refused(_head_too_large())
        if self.in_head:  # else a trailer, which is dropped
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        self.in_head, self.begun = False, 0.0
        self._progress = True
        parser = self._parser
        headers = fields(self._pairs)
        version = parser.get_http_version()
        declined = parser.should_upgrade() and _has_body(headers)
        if parser.get_method() == b"CONNECT" or (declined and "transfer-encoding" in headers):
            raise Refused(malformed(501, "This server does not change protocols.", "upgrade_refused"))
        self._length = self._framing(headers, version)
        request = Request(
            parser.get_method().decode("ascii"), self._target(), version, self._pairs, headers,
            self._remote, self._scheme,
        )  # fmt: skip
        request.keep_alive = version == "1.1" and parser.should_keep_alive()
        self._on_head(request)
        self._body_follows = declined
        self._expect_body(request, self._length)

    def _expect_body(self, request: Request, length: int) -> None:
        self._request = request
        self._chunks = []
        self._length = length
        self._size = 0

    def _framing(self, headers: dict[str, str], version: str) -> int:
        """The declared length of the body; 0 when chunked. Refuses what two readers could read differently."""
        if version not in ("1.1", "1.0"):
            raise Refused(malformed(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.", "version_unknown"))
        if len(headers) < len(self._pairs):
            names = [name.lower() for name, _ in self._pairs]
            if any(names.count(name.encode()) > 1 for name in REPEATED):
                raise Refused(malformed(400, "A header that may stand once stands twice.", "malformed_request"))
        if version == "1.1" and "host" not in headers:
            raise Refused(malformed(400, "The Host header is missing.", "malformed_request"))
        coding = headers.get("transfer-encoding")
        if coding is not None and (coding.strip().lower() != "chunked" or version == "1.0"):
            raise Refused(malformed(400, "The transfer coding is not understood.", "malformed_request"))
        length = int(headers.get("content-length", "0"))
        if length > self._max_body:
            raise Refused(too_large(self._max_body))
        return length

    def _target(self) -> str:
        """Path and query; of a whole URL, as a proxy is asked, what follows the host."""
        target = self._url.decode("latin-1")
        scheme, mark, rest = target.partition("://")
        plain = target.startswith("/") or target == "*"
        # A fragment is never sent. Backends cut it off, so that they would see another path than who judges it here.
        if "#" in target or not (plain or (mark and scheme.lower() in ("http", "https"))):
            raise Refused(malformed(400, "The request's target is malformed.", "malformed_request"))
        if plain:
            return target
        path = rest[len(rest.split("/", 1)[0].split("?", 1)[0]) :]
        return path if path.startswith("/") else "/" + path

    def on_body(self, data: bytes) -> None:
        self._progress = True
        self._stalled = 0
        self._chunks.append(data)
        self._size += len(data)
        if self._size > self._max_body:
            raise Refused(too_large(self._max_body))

    def on_chunk_header(self) -> None:
        self._progress = True
        self._stalled = 0

    def on_message_complete(self) -> None:
        if self._body_follows:
            return
        self._progress = True
        if (request := self._request) is not None:
            self._finish(request)
            self._first = self._first or request

    def _finish(self, request: Request) -> None:
        """The body is whole."""
        self._request = None
        chunks, self._chunks = self._chunks, []
        request.body = chunks[0] if len(chunks) == 1 and isinstance(chunks[0], bytes) else b"".join(chunks)
        self._on_whole(request)


def _has_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "").strip("0") != ""


def _head_too_large() -> Reply:
    return malformed(431, "The request's head is too large.", "head_too_large")


def too_large(limit: int) -> Reply:
    return malformed(413, f"The body is larger than {limit} bytes.", "body_too_large")
