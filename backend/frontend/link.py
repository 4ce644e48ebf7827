"""One scheduler process and the sockets to it, from start to end. One that died gets a successor, not a repair."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from backend.config import ServerArgs
from backend.frontend.client import SchedulerClient
from backend.frontend.frontend import Frontend
from backend.frontend.process import SchedulerProcess, SchedulerTarget
from backend.frontend.timeouts import Timeouts
from backend.messages import SchedulerReady
from backend.prompt import ModelSource

LAST_WORD_SECONDS = 0.5  # what the scheduler said before it died may still be on the way

_T = TypeVar("_T")


class SchedulerDied(Exception):
    """The process ended while its answer was waited for."""


class SchedulerLink:
    """To be made and used inside one event loop; ``start`` once, ``close`` once."""

    def __init__(self, target: SchedulerTarget) -> None:
        self._process = SchedulerProcess(target)
        self.client = SchedulerClient(self._process.to_scheduler, self._process.from_scheduler)
        self._frontend: Frontend | None = None
        self._dispatching: asyncio.Task[None] | None = None
        self._enforcing: asyncio.Task[None] | None = None

    def start(self, args: ServerArgs, source: ModelSource) -> None:
        """Start the process, which begins to load the model."""
        self._process.start(args, source)

    async def ready(self) -> SchedulerReady:
        """The scheduler's first word. Raises :class:`SchedulerDied` when it ends before."""
        return await self.while_alive(self.client.ready())

    async def while_alive(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of ``work``, which needs the scheduler; :class:`SchedulerDied` when that ends before."""
        working = asyncio.create_task(work)
        gone = asyncio.create_task(self._process.ended())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await asyncio.wait({working}, timeout=LAST_WORD_SECONDS)
            if not working.done():
                raise SchedulerDied(f"the scheduler process ended while starting ({self._how()})")
            return working.result()
        finally:
            await cancel(working, gone)

    def attach(self, frontend: Frontend, timeouts: Timeouts) -> None:
        """From now on the scheduler's messages go to ``frontend``, which is closed with the link."""
        self._frontend = frontend
        self._dispatching = asyncio.create_task(self.client.run(frontend.dispatch))
        self._enforcing = asyncio.create_task(frontend.enforce(timeouts))

    async def lost(self) -> tuple[str, BaseException | None]:
        """Wait until the process is gone or its messages cannot be read; why, for people, and the error behind it."""
        gone = asyncio.create_task(self._process.ended())
        watched: set[asyncio.Task[Any]] = {gone} | ({self._dispatching} if self._dispatching else set())
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(gone)
        if self._dispatching is not None and self._dispatching.done():
            return "The scheduler's messages cannot be read.", self._dispatching.exception()
        return f"The scheduler process ended unexpectedly ({self._how()}).", None

    async def close(self, grace: float) -> None:
        """See the process end, by itself within ``grace`` seconds, and give back what belongs to it."""
        if self._frontend is not None:
            self._frontend.close()
        self.client.shut_down()
        await cancel(*(task for task in (self._dispatching, self._enforcing) if task is not None))
        await asyncio.to_thread(self._process.stop, grace)
        self.client.close()

    def _how(self) -> str:
        code = self._process.exit_code
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what still runs and see it end; results and errors were read by whoever waited for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
