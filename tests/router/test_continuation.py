"""Who is asked how many tokens a cut stream had."""

from __future__ import annotations

import json

import pytest

from router.continuation import Continuation
from router.fleet.registry import Registry
from router.fleet.worker import Health, Worker, WorkerSpec
from router.metrics import Metrics
from router.retry import Failure
from router.upstream import Outgoing, UpstreamError

BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "stream": True}).encode()
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "some words"}, "finish_reason": null}]}\n\n'


class Upstream:
    """Workers of which some answer ``/tokenize``."""

    def __init__(self, answering: set[str]) -> None:
        self.answering = answering
        self.asked: list[str] = []

    async def fetch(
        self, worker: Worker, method: str, path: str, timeout: float, body: bytes | None = None
    ) -> tuple[int, bytes]:
        self.asked.append(worker.url[-1])
        if worker.url[-1] not in self.answering:
            raise UpstreamError(Failure.TIMEOUT, "no answer in time")
        return 200, b'{"tokens": [1, 2]}'


@pytest.mark.parametrize(
    ("healths", "answering", "asked", "goes_on"),
    [
        (["healthy", "healthy", "healthy"], {"1", "2", "3"}, ["2"], True),  # the first one failed
        (["healthy", "healthy", "unhealthy"], {"3"}, ["2", "3"], True),
        (["healthy", "unhealthy", "unhealthy"], {"3"}, ["2", "3"], True),
        (["healthy", "healthy", "unhealthy"], {"1"}, ["2", "3", "1"], True),  # busy, say: it can count all the same
        (["healthy", "healthy", "unhealthy"], set(), ["2", "3", "1"], False),
    ],
)
async def test_who_fails_its_checks_or_this_request_is_asked_when_no_other_tells(healths, answering, asked, goes_on):
    registry, upstream = Registry(), Upstream(answering)
    for port, health in enumerate(healths, 1):
        registry.add(WorkerSpec(url=f"http://127.0.0.1:{port}")).health = Health(health)
    continuation = Continuation(registry, upstream, Metrics(lambda _: True))  # type: ignore[arg-type]
    transcript = continuation.watch("request", "/v1/chat/completions", BODY)
    transcript.relay(EVENT)
    outgoing = Outgoing("POST", "/v1/chat/completions", b"", BODY)
    continued = await continuation.next_request("request", transcript, outgoing, "", {"http://127.0.0.1:1"})
    assert upstream.asked == asked
    assert (continued is not None) == goes_on
    if continued is not None:
        assert json.loads(continued.body)["max_tokens"] == 7
