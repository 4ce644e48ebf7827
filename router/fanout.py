"""The same small question to many workers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from router.fleet.worker import Worker
from router.upstream import Upstream, UpstreamError

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FleetAnswer:
    """What one worker said. ``problem`` is empty when it answered 2xx."""

    worker: Worker
    body: bytes = b""
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


async def ask_all(
    upstream: Upstream, workers: Iterable[Worker], method: str, path: str, body: bytes | None = None
) -> list[FleetAnswer]:
    """Ask each worker; one that is slow or down delays nobody beyond the time limit."""
    return await asyncio.gather(*(_ask(upstream, worker, method, path, body) for worker in workers))


async def _ask(upstream: Upstream, worker: Worker, method: str, path: str, body: bytes | None) -> FleetAnswer:
    try:
        status, answer = await upstream.fetch(worker, method, path, TIMEOUT_SECONDS, body)
    except UpstreamError as error:
        return FleetAnswer(worker, problem=error.failure.value)
    return FleetAnswer(worker, answer, "" if 200 <= status < 300 else f"status {status}")
