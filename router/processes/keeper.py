"""Keeps one data process running: starts it, speaks with it, starts it again when it dies."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from router.errors import Refusal
from router.http.message import Reply, Request
from router.processes.channel import Channel
from router.processes.messages import Drained, Listening, Message, Refused, Stop

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 10.0  # after that long a process's earlier deaths are forgotten
STOP_SECONDS = 5.0
ASK_SECONDS = 2.0


HOME = Path(__file__).resolve().parents[2]  # where this router was imported from


class DataProcessError(Exception):
    """A data process cannot start; a text for the person who started the router."""


class Household(Protocol):
    """What a keeper needs of the owner. Processes are known by their index."""

    def greeting(self, index: int) -> list[Message]:
        """What a new process is told first."""

    def told(self, index: int, message: Message) -> None: ...

    def placed(self, index: int, batch: bytes) -> None: ...

    async def answer(self, request: Request) -> Reply: ...

    def ended(self, index: int) -> None: ...


class Keeper:
    """Of the data process ``index``; ``loads`` is the descriptor of the shared array."""

    def __init__(self, index: int, loads: int, household: Household) -> None:
        self.index = index
        self._loads = loads
        self._household = household
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self.drained = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Wait until it listens. Raises :class:`DataProcessError`."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"data process {self.index}")
        await asyncio.wait({self._task, self._listening}, return_when=asyncio.FIRST_COMPLETED)
        if not self._listening.done():
            raise DataProcessError(f"data process {self.index} could not be started")
        self._listening.result()

    def send(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def send_placements(self, batch: bytes) -> None:
        if self._channel is not None:
            self._channel.send_placements(batch)

    async def ask(self, request: Request) -> Reply | None:
        """Its answer; None when it does not run, or says nothing in time."""
        if self._channel is None:
            return None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._channel.ask(request)
        except (Refusal, TimeoutError):  # it died meanwhile, or hangs
            return None

    async def stop(self) -> None:
        """End it; what is under way is cut."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.send(Stop())
        if self._process is not None and self._process.returncode is None:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        if self._channel is not None:
            self._channel.close()

    async def _keep(self) -> None:
        deaths = 0
        while True:
            started = time.monotonic()
            try:
                end = f"ended with status {await self._run()}"
            except OSError as error:  # no memory or no room for another process now
                end = f"cannot be started: {error}"
            if not self._listening.done():
                self._listening.set_exception(DataProcessError(f"data process {self.index} {end} before it listened"))
                return
            deaths = 0 if time.monotonic() - started > STEADY_SECONDS else deaths
            pause = BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS) - 1)]
            deaths += 1
            log.warning("data process %d %s; starting it again in %g s", self.index, end, pause)
            await asyncio.sleep(pause)

    async def _run(self) -> int:
        """One life of the process; its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = process = await asyncio.create_subprocess_exec(
                    sys.executable, *_import_flags(), "-m", "router.processes.data", str(theirs.fileno()),
                    str(self._loads),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), self._loads),
                    start_new_session=True,  # Ctrl-C reaches the owner alone
                )  # fmt: skip
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        channel = Channel(self._told, self._placed, self._household.answer, lambda: None)
        await channel.connect(ours)
        for message in self._household.greeting(self.index):
            channel.send(message)
        self._channel = channel
        code = await process.wait()
        self._channel = None
        channel.close()
        self.drained.set()  # whatever it had is over
        self._household.ended(self.index)
        return code

    def _placed(self, batch: bytes) -> None:
        self._household.placed(self.index, batch)

    def _told(self, message: Message) -> None:
        if isinstance(message, Listening):
            self.drained.clear()
            if not self._listening.done():
                self._listening.set_result(None)
        elif isinstance(message, Refused):
            if not self._listening.done():
                self._listening.set_exception(DataProcessError(message.reason))
            log.error("data process %d cannot start: %s", self.index, message.reason)
            self.send(Stop())
        elif isinstance(message, Drained):
            self.drained.set()
        else:
            self._household.told(self.index, message)


def _import_flags() -> list[str]:
    """The process runs this router, not another one that happens to stand in the working directory."""
    return [] if Path.cwd() == HOME else ["-P"]
