"""A policy that tells the other processes what was placed, so that each one's memory of prefixes is that of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from policies.policy import Candidate, Decision, Policy, RouteRequest
from router.processes.messages import Placement

FLUSH_SECONDS = 0.003
BATCH_BYTES = 256 * 1024  # sent at once

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Placement])


class SharedPolicy(Policy):
    """Decides as ``inner`` does; what it records goes to ``send`` in batches of some milliseconds."""

    def __init__(self, inner: Policy, send: Callable[[bytes], None]) -> None:
        self.inner = inner
        self.name = inner.name  # type: ignore[misc]  # of the instance: this class has no policy of its own
        self._send = send
        self._remembers = type(inner).record is not Policy.record
        self._batch: list[Placement] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        return self.inner.choose(request, candidates, now)

    def record(self, request: RouteRequest, worker: str, now: float) -> None:
        if not self._remembers:
            return
        self.inner.record(request, worker, now)
        self._tell(request, worker, -1)

    def _tell(self, request: RouteRequest, worker: str, cached: int) -> None:
        text, tokens = request.text, request.prompt_tokens
        self._batch.append(
            Placement(worker, cached, text, tokens, request.model, request.namespace, request.routing_key)
        )
        self._bytes += len(text)
        if self._bytes >= BATCH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Tell the others now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._batch:
            self._send(_ENCODER.encode(self._batch))
            self._batch.clear()
            self._bytes = 0

    def told(self, batch: bytes, known: Callable[[str], object | None], now: float) -> None:
        """Another process placed these; workers that are not ``known`` are gone."""
        for placed in _DECODER.decode(batch):
            if known(placed.worker) is not None:
                request = RouteRequest(
                    placed.text, placed.prompt_tokens, placed.model, placed.namespace, placed.routing_key
                )
                if placed.cached < 0:
                    self.inner.record(request, placed.worker, now)
                else:
                    self.inner.observe(request, placed.worker, placed.cached, now)

    def observe(self, request: RouteRequest, worker: str, cached_tokens: int, now: float) -> None:
        self.inner.observe(request, worker, cached_tokens, now)
        if self._remembers and cached_tokens * 2 < request.prompt_tokens:
            self._tell(request, worker, cached_tokens)

    def felt(self, request: RouteRequest, worker: str, computed_tokens: float, alone: bool) -> None:
        self.inner.felt(request, worker, computed_tokens, alone)

    def capacity(self, worker: str, kv_tokens: int) -> None:
        self.inner.capacity(worker, kv_tokens)

    def forget(self, worker: str) -> None:
        self.inner.forget(worker)

    def stats(self) -> dict[str, float]:
        return self.inner.stats()
