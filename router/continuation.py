"""What is sent where after a stream was cut: counts what the client has, and asks another worker to go on."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from router.fleet.registry import Registry
from router.fleet.told import decoded
from router.fleet.worker import Worker
from router.metrics import Metrics
from router.resume import Refused, Transcript, make_transcript, plan
from router.upstream import Outgoing, Upstream, UpstreamError

log = logging.getLogger(__name__)

TOKENIZE = "/tokenize"
TOKENIZE_SECONDS = 5.0


class _Tokens(msgspec.Struct):
    tokens: list[int]


class Continuation:
    """Makes the requests that continue cut streams. One for the router; what went by is in the transcripts."""

    def __init__(self, registry: Registry, upstream: Upstream, metrics: Metrics) -> None:
        self._registry = registry
        self._upstream = upstream
        self._metrics = metrics

    def watch(self, request_id: str, path: str, body: bytes) -> Transcript | None:
        """A transcript for a stream that begins; None, with the reason in the log, when it could not be continued."""
        judged = plan(path, body)
        if isinstance(judged, Refused):
            log.info("request %s would not be continued after a cut: %s", request_id, judged.reason)
            return None
        return make_transcript(judged)

    async def next_request(
        self, request_id: str, transcript: Transcript, outgoing: Outgoing, model: str, failed: set[str]
    ) -> Outgoing | None:
        """``outgoing`` as it goes on elsewhere; None, with the reason in the log, when it cannot."""
        tokens = await self._tokenise(transcript.text, model, failed) if transcript.needs_tokens else None
        body = transcript.resume(tokens)
        if body is None:
            reason = transcript.spoiled or "nobody could tell how many tokens were sent"
            log.warning("request %s is not continued: %s", request_id, reason)
            return None
        self._metrics.resumed.inc()
        return Outgoing(outgoing.method, outgoing.target, outgoing.lines, body, outgoing.authorization)

    async def _tokenise(self, text: str, model: str, failed: set[str]) -> list[int] | None:
        question: dict[str, Any] = {"prompt": text, "add_special_tokens": False}
        if model:
            question["model"] = model
        body = msgspec.json.encode(question)
        for worker in self._who_may_tell(model, failed):
            try:
                status, told = await self._upstream.fetch(worker, "POST", TOKENIZE, TOKENIZE_SECONDS, body)
            except UpstreamError as error:
                log.info("worker %s did not tokenise: %s", worker.url, error)
                continue
            counted: _Tokens | None = decoded(told, _Tokens) if status == 200 else None
            if counted is not None:
                return counted.tokens
            log.info("worker %s did not tokenise: status %d", worker.url, status)
        return None

    def _who_may_tell(self, model: str, failed: set[str]) -> list[Worker]:
        """Those that failed this request too, but last: one that was busy or cut a stream may well count tokens."""
        registry = self._registry
        untried = registry.eligible(model, failed) + registry.last_resort(model, failed)
        every = registry.eligible(model) + registry.last_resort(model)
        return untried + [worker for worker in every if worker.url in failed]
