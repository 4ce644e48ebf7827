"""What the owner and its data processes say to each other, as msgpack."""

from __future__ import annotations

from typing import Any

import msgspec

from router.http.message import Reply, Request


class Message(msgspec.Struct, tag=True, array_like=True):
    """Any of the messages below."""


class Setup(Message):
    """Owner, first of all: what to be. ``config``: the settings as JSON; ``index``: which of the ``processes``."""

    config: bytes
    host: str
    port: int
    index: int
    processes: int


class Listening(Message):
    """Data process: it takes connections."""


class Refused(Message):
    """Data process: it cannot start, and why."""

    reason: str


class BreakerView(msgspec.Struct, frozen=True, array_like=True):
    """A breaker as those see it who may not change it. Times on the monotonic clock, which all processes share."""

    period: int = 0
    open_until: float | None = None
    probe_since: float | None = None
    tense: bool = False  # a success would change it


class WorkerState(msgspec.Struct, frozen=True, array_like=True):
    """One worker in a snapshot. ``spec`` is the JSON of its WorkerSpec, ``slot`` its place in the shared array."""

    id: str
    slot: int
    spec: bytes
    health: str
    gone: bool
    draining: bool
    models: dict[str, dict[str, Any]]
    breaker: BreakerView | None = None
    rest_until: float | None = None


class Snapshot(Message):
    """Owner: the fleet and the router's own state, whole. A higher version replaces a lower one."""

    version: int
    workers: list[WorkerState]
    starting: bool
    ready: bool
    refusing: bool


class Drained(Message):
    """Data process: it refuses requests and has none under way."""


class Stop(Message):
    """Owner: cut what is under way and end."""


class Suspect(Message):
    """Data process: a request failed there."""

    url: str


class Silent(Message):
    """Data process: the worker left questions unanswered."""

    url: str


class Verdict(Message):
    """Data process: ``what`` happened to a breaker that was in this ``period``; ``probe``: to its probe."""

    url: str
    period: int
    what: str
    probe: bool = False


class Rest(Message):
    """Data process: the worker asked for a pause."""

    url: str
    until: float


class Emptied(Message):
    """Owner: the worker's cache is empty; ``restarted``: because its process is another one."""

    url: str
    restarted: bool


class Noted(Message):
    """Data process: what it found out of workers, for ``/workers``."""

    notes: dict[str, dict[str, Any]]


class Question(Message):
    """Either side: an HTTP request to be answered there."""

    number: int
    method: str
    target: str
    version: str
    pairs: list[tuple[bytes, bytes]]
    headers: dict[str, str]
    remote: str
    scheme: str
    body: bytes

    @classmethod
    def of(cls, number: int, request: Request) -> Question:
        return cls(
            number, request.method, request.target, request.version, request.pairs, dict(request.headers),
            request.remote, request.scheme, bytes(request.body),
        )  # fmt: skip

    def request(self) -> Request:
        request = Request(self.method, self.target, self.version, self.pairs, self.headers, self.remote, self.scheme)
        request.body = self.body
        return request


class Said(Message):
    """The answer to the question of that number."""

    number: int
    status: int
    pairs: list[tuple[bytes, bytes]]
    body: bytes

    @classmethod
    def of(cls, number: int, reply: Reply) -> Said:
        return cls(number, reply.status, list(reply.pairs), reply.body)

    def reply(self) -> Reply:
        return Reply(self.status, self.body, self.pairs)


class Placement(msgspec.Struct, array_like=True):
    """A request that was sent to ``worker``, as far as policies remember it; ``cached``: what it then said that it had
    cached, -1 when it is sent only now.
    """

    worker: str
    cached: int
    text: bytes
    prompt_tokens: int
    model: str
    namespace: str
    routing_key: str


ANY = (
    Setup | Listening | Refused | Snapshot | Drained | Stop | Suspect | Silent | Verdict | Rest | Emptied | Noted
    | Question | Said
)  # fmt: skip
