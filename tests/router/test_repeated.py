"""Heads that come again are not parsed again, and nobody can tell."""

from __future__ import annotations

from httptools import HttpParserCallbackError, HttpParserError
from hypothesis import example, given
from hypothesis import strategies as st

from router.http.intake import Intake, Refused
from router.http.message import Request
from router.http.repeated import Repeated

HEADS = (
    b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Tag: b\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nHost: a\r\nX-Tag: content-length: 7\r\ncontent-length:%d\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nContent-Length: 3\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /generate HTTP/1.0\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n",
)
BODIES = (b"", b"abc", b"\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"Content-Length: 3\r\n\r\nabc", b"x" * 40)


class Reader:
    """What an intake makes of bytes. ``forgetful`` ones parse every head."""

    def __init__(self, forgetful: bool) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.over = False
        self._forgetful = forgetful
        self._intake = self._fresh()

    def feed(self, data: bytes) -> None:
        if self.over:
            return
        if self._forgetful and not (self._intake.in_head or self._intake.in_body):
            self._intake = self._fresh()
        try:
            self._intake.feed(data)
        except (Refused, HttpParserError, HttpParserCallbackError):
            self.over = True

    def _fresh(self) -> Intake:
        return Intake(65536, 64, lambda request: None, self._whole, "10.0.0.1", "http")

    def _whole(self, request: Request) -> None:
        if self.over:
            return
        self.over = not request.keep_alive  # nothing behind it is read
        headers = sorted((name.lower(), value) for name, value in request.pairs)
        named = (request.method, request.target, request.path, request.version, request.remote, request.scheme)
        self.seen.append((*named, headers, request.headers, request.body, request.keep_alive))


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """Requests in a row, some of them damaged, some in two pieces."""
    pieces: list[bytes] = []
    heads = draw(st.lists(st.sampled_from(HEADS[:2] * 4 + HEADS), min_size=1, max_size=3))
    for _ in range(draw(st.integers(1, 6))):
        body = draw(st.sampled_from(BODIES))
        said = draw(st.sampled_from([len(body)] * 5 + [0, len(body) + 1, 10**8]))
        data = draw(st.sampled_from(heads)) % said + body
        at = draw(st.integers(0, len(data)))
        damage = draw(st.sampled_from(["none"] * 6 + ["cut", "insert"]))
        if damage == "cut":
            pieces += [data[:at], data[at:]]
        else:
            pieces.append(
                data[:at] + draw(st.binary(min_size=1, max_size=3)) + data[at:] if damage == "insert" else data
            )
    return [piece for piece in pieces if piece]


@given(messages())
@example([HEADS[0] % 3 + b"abc", HEADS[0] % 40 + b"x" * 40, HEADS[0] % 100 + b"x" * 100])
@example([HEADS[0] % 3 + b"abc", HEADS[0].replace(b"%d", b"+3") + b"abc", HEADS[0] % 3 + b"abc"])
@example([HEADS[0] % 3 + b"abc", HEADS[0] % 3 + b"abcPOST", b" / HTTP/1.1\r\n\r\n"])
def test_a_connection_that_remembers_reads_the_same(pieces: list[bytes]) -> None:
    remembering, forgetful = Reader(False), Reader(True)
    for piece in pieces:
        remembering.feed(piece)
        forgetful.feed(piece)
        assert remembering.seen == forgetful.seen
        assert remembering.over == forgetful.over


def test_what_does_not_depend_on_the_length_is_worked_out_once() -> None:
    seen: list[Request] = []
    intake = Intake(65536, 64, lambda request: None, seen.append, "10.0.0.1", "http")
    for body in (b"abc", b"defg", b""):
        intake.feed(HEADS[0] % len(body) + body)
    seen[0].memo["word"] = b"kept"
    assert [request.body for request in seen] == [b"abc", b"defg", b""]
    assert [request.memo.get("word") for request in seen] == [b"kept"] * 3
    assert [request.headers["content-length"] for request in seen] == ["3", "4", "0"]


def test_a_head_is_kept_only_where_it_surely_ends() -> None:
    head = HEADS[0] % 4
    assert Repeated.of(head + b"\r\n\r\n", 4, 4) is not None
    assert Repeated.of(head + b"abc", 4, 4) is None, "the body is not whole"
    assert Repeated.of(head + b"abcde", 4, 4) is None, "something follows"
    assert Repeated.of(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nabcd", 4, 4) is None, "no length was told"


LONG_BODIES = st.sampled_from([0, 5, 16_000, 20_000, 70_000])
CHUNKED = b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@given(st.lists(st.tuples(st.sampled_from(HEADS[:2]) | st.none(), LONG_BODIES), max_size=5), st.data())
def test_long_bodies_are_read_whole_however_they_arrive(
    asked: list[tuple[bytes | None, int]], data: st.DataObject
) -> None:
    bodies = [bytes([65 + index]) * size for index, (_, size) in enumerate(asked)]
    sent = b""
    for (head, size), body in zip(asked, bodies, strict=True):
        chunk = b"%x\r\n%s\r\n" % (size, body) if size else b""
        sent += CHUNKED + chunk + b"0\r\n\r\n" if head is None else head % size + body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    seen: list[Request] = []
    intake = Intake(65536, 70_000, lambda request: None, seen.append, "10.0.0.1", "http")
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        intake.feed(sent[start:stop])
    assert [request.body for request in seen] == bodies
    assert all(type(request.body) is bytes for request in seen)
    assert (intake.in_head, intake.in_body) == (False, False)
