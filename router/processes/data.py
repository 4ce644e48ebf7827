"""A data process: serves clients on the shared port, with the fleet that the owner's snapshots tell.

``python -m router.processes.data LINE LOADS`` is how the owner starts one; both are inherited file descriptors.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from router.app import Router
from router.config import ConfigError, RouterConfig
from router.control import ControlPlane
from router.exchange import now_seconds
from router.fleet.worker import WorkerSpec
from router.http.message import Reply, Request
from router.processes.channel import Channel
from router.processes.data_parts import DataParts, SharedControl, worker_part
from router.processes.guard_mirror import GuardMirror
from router.processes.messages import Drained, Emptied, Listening, Message, Noted, Refused, Setup, Snapshot, Stop
from router.processes.mirror import FleetMirror
from router.processes.shared_leases import SharedLeases
from router.processes.shared_load import SharedLoads
from router.processes.shared_policy import SharedPolicy
from router.prompt_text import PromptTextError
from router.service import load_text, prepare, run_loop

log = logging.getLogger("router")

NOTES_SECONDS = 1.0


class DataProcess:
    """One router whose fleet is the owner's."""

    def __init__(self, loads: int) -> None:
        self._loads = loads
        self._channel = Channel(self._told, self._placed, self._answer, self._owner_left)
        self._setup: asyncio.Future[Setup] = asyncio.get_running_loop().create_future()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._latest: Snapshot | None = None
        self._router: Router | None = None
        self._part: Callable[[WorkerSpec], WorkerSpec] = lambda spec: spec
        self._mirror: FleetMirror | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, line: socket.socket) -> None:
        """Until the owner says so or is gone."""
        await self._channel.connect(line)
        setup = await self._setup
        try:
            router = self._router = self._make(setup)
            await self._first
            await router.start()
        except (ConfigError, PromptTextError, OSError) as error:
            self._channel.send(Refused(str(error)))
            await self._stop.wait()
            return
        self._channel.send(Listening())
        self._start(self._note(router))
        await self._stop.wait()
        for task in self._tasks:
            task.cancel()
        await router.stop()
        self._channel.close()

    def _make(self, setup: Setup) -> Router:
        config = RouterConfig.model_validate_json(setup.config)
        seed = None if config.seed is None else config.seed + setup.index
        config = config.model_copy(
            update={"host": setup.host, "port": setup.port, "prometheus_port": None, "seed": seed}
        )
        prepare(config, f"[{setup.index}]")
        self._part = partial(worker_part, index=setup.index, processes=setup.processes)
        shared = SharedLoads(setup.processes, self._loads)
        parts = DataParts(self._channel, shared, setup.index, setup.processes, self._follow)
        return Router(config, load_text(config), parts)

    def _follow(self) -> None:
        """The router listens: from now on its fleet is what snapshots say."""
        router = self._router
        if router is None:
            return
        guards, leases = router.protection.guards, router.leases
        if isinstance(guards, GuardMirror) and isinstance(leases, SharedLeases):
            self._mirror = FleetMirror(router.registry, guards, leases, router.inflight, self._part)
            self._apply()

    def _apply(self) -> None:
        if self._router is None or self._mirror is None or self._latest is None:
            return
        refused = self._router.inflight.refusing
        self._mirror.become(self._latest, now_seconds())
        self._router.protection.admission.move()
        if self._router.inflight.refusing and not refused:
            self._start(self._drain(self._router))

    def _told(self, message: Message) -> None:
        if isinstance(message, Setup):
            self._setup.set_result(message)
        elif isinstance(message, Snapshot):
            self._latest = message
            if not self._first.done():
                self._first.set_result(None)
            self._apply()
        elif isinstance(message, Emptied):
            self._emptied(message)
        elif isinstance(message, Stop):
            self._stop.set()

    def _emptied(self, message: Emptied) -> None:
        router = self._router
        if router is None:
            return
        worker = router.registry.find(message.url)
        if worker is not None and message.restarted:
            router.policy.forget(worker.url)
            router.insight.worker_restarted(worker)
        elif worker is not None:
            router.insight.worker_emptied(worker.url)

    def _placed(self, batch: bytes) -> None:
        router = self._router
        if router is not None and isinstance(router.policy, SharedPolicy):
            router.policy.told(batch, router.registry.find, now_seconds())

    async def _answer(self, request: Request) -> Reply:
        """What the owner asks each process for itself."""
        control: ControlPlane | None = None if self._router is None else self._router.control
        if not isinstance(control, SharedControl):
            return Reply(503)
        return await control.ask_here(request)

    async def _drain(self, router: Router) -> None:
        await router.inflight.drained()
        self._channel.send(Drained())

    async def _note(self, router: Router) -> None:
        """Tell the owner what was found out of workers."""
        told: dict[str, dict[str, Any]] = {}
        while True:
            notes = {w.url: {name: read() for name, read in w.notes.items()} for w in router.registry.all()}
            if notes != told:
                told = notes
                self._channel.send(Noted(notes))
            await asyncio.sleep(NOTES_SECONDS)

    def _owner_left(self) -> None:
        """Without an owner nobody checks the workers: finish what is under way and end."""
        if self._stop.is_set():
            return
        for awaited in (self._setup, self._first):
            awaited.cancel()  # it will not come any more
        if self._router is None or not self._tasks:
            self._stop.set()
        else:
            log.error("the router's control process is gone: this process ends after the requests under way")
            self._start(self._end(self._router))

    async def _end(self, router: Router) -> None:
        router.close_port()
        await router.drain()
        self._stop.set()

    def _start(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))


async def serve(line: int, loads: int) -> None:
    """Run the data process of these inherited file descriptors."""
    await DataProcess(loads).run(socket.socket(fileno=line))


def main(argv: list[str]) -> None:
    """Signals are the owner's: it tells when to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with suppress(asyncio.CancelledError):  # the owner left before it had said what to do
        run_loop(serve(int(argv[0]), int(argv[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
