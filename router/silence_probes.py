"""Asks workers whose first bytes are outstanding how they are (see :mod:`router.silence`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from router.fleet.worker import Worker
from router.retry import Failure
from router.silence import Depth, Silence
from router.upstream import UpstreamError

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
HELD_UP = 0.5  # of the time for an answer: who was held up itself for so much of it proves nothing against the worker
GENERATE = "/health_generate"  # Warmlane and SGLang: 200 when a token came out


class Asker(Protocol):
    """What the probes need from the connections to workers."""

    async def fetch(
        self, worker: Worker, method: str, path: str, timeout: float, body: bytes | None = None
    ) -> tuple[int, bytes]: ...


class SilenceProbes:
    """A task that looks at the waits ten times a second and asks where it is time. One question a worker at a time."""

    def __init__(
        self,
        silence: Silence,
        asker: Asker,
        find: Callable[[str], Worker | None],
        silent: Callable[[Worker], None],
        health_endpoint: str,
        timeout: float,
        now: Callable[[], float],
    ) -> None:
        self._silence = silence
        self._asker = asker
        self._find = find
        self._silent = silent  # told of workers that do not even answer health checks
        self._paths = {Depth.HEALTH: health_endpoint, Depth.GENERATE: GENERATE}
        self._timeout = timeout
        self._now = now
        self._late = 0.0  # seconds that this process was held up, since it began
        self._questions: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="silence probes")

    def close(self) -> None:
        for task in (self._task, *self._questions):
            if task is not None:
                task.cancel()

    async def _run(self) -> None:
        while True:
            before = self._now()
            await asyncio.sleep(TICK_SECONDS)
            self._late += max(0.0, self._now() - before - TICK_SECONDS)
            for url, depth in self._silence.due(self._now()):
                task = asyncio.get_running_loop().create_task(self._ask(url, depth), name=f"silence {url}")
                self._questions.add(task)
                task.add_done_callback(self._questions.discard)

    async def _ask(self, url: str, depth: Depth) -> None:
        worker, late = self._find(url), self._late
        asked = {Depth.HEALTH, depth}
        answers = await asyncio.gather(*(self._answers(worker, self._paths[one]) for one in asked))
        answered = dict(zip(asked, answers, strict=True))
        well = answered[depth] or (None if self._late - late >= HELD_UP * self._timeout else False)
        given_up = self._silence.told(url, well, self._now())
        if given_up and worker is not None and not answered[Depth.HEALTH]:
            self._silent(worker)
        if given_up:
            log.warning(
                "worker %s is silent: it answered %d requests and two probes of %s with nothing",
                url, len(given_up), self._paths[depth],
            )  # fmt: skip

    async def _answers(self, worker: Worker | None, path: str) -> bool:
        """Any answer will do, also an error or "not found": how a worker is judges the health check."""
        if worker is None:
            return False
        try:
            await self._asker.fetch(worker, "GET", path, self._timeout)
        except UpstreamError as error:
            return error.failure is not Failure.TIMEOUT and error.failure is not Failure.CONNECT
        return True
