"""The scheduler's process: started afresh (spawn), watched, and never left behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from backend.config import ServerArgs
from backend.prompt.source import ModelSource

SchedulerTarget = Callable[[ServerArgs, ModelSource, str, str], None]
STOP_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_real_scheduler(args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str) -> None:
    """The product's target. Imports torch, hence only in the child."""
    from backend.scheduler.process import run_scheduler

    run_scheduler(args, source, to_scheduler, from_scheduler)


class SchedulerProcess:
    """One child process and the private folder with the two sockets through which it is reached."""

    def __init__(self, target: SchedulerTarget = run_real_scheduler) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="warmlane-"))  # mode 0700
        self.to_scheduler = f"ipc://{self._folder}/to"
        self.from_scheduler = f"ipc://{self._folder}/from"
        self._target = target
        self._process: multiprocessing.process.BaseProcess | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode if self._process else None

    def start(self, args: ServerArgs, source: ModelSource) -> None:
        """Start the child; both sockets must be bound by then."""
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(
            target=_child_main,
            args=(self._target, args, source, self.to_scheduler, self.from_scheduler),
            name="warmlane-scheduler",
        )
        with _held_back(_SIGNALS):  # until the child ignores them
            self._process.start()

    async def ended(self) -> None:
        """Wait until the child is gone. To be awaited once, after ``start``."""
        if self._process is None:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        sentinel = self._process.sentinel
        loop.add_reader(sentinel, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(sentinel)
        self._process.join()

    def stop(self, grace: float = STOP_SECONDS) -> None:
        """See the child end: by itself within ``grace`` seconds, else by force. Removes the sockets' folder."""
        if self._process is not None:
            self._process.join(grace)
            self._process.kill()
            self._process.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def _child_main(
    target: SchedulerTarget, args: ServerArgs, source: ModelSource, to_scheduler: str, from_scheduler: str
) -> None:
    # Ctrl-C and service managers signal the whole group; the server decides when the scheduler ends.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    # Only this process shows progress; a lock between processes would be reported as leaked when this one is killed.
    tqdm.set_lock(threading.RLock())
    folder = Path(to_scheduler.removeprefix("ipc://")).parent
    threading.Thread(target=_die_with_parent, args=(folder,), name="parent-watch", daemon=True).start()
    target(args, source, to_scheduler, from_scheduler)


@contextmanager
def _held_back(signals: Collection[signal.Signals]) -> Iterator[None]:
    """Signals wait, in this thread and in processes that it starts meanwhile, which inherit that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent(folder: Path) -> None:
    """End this process when the server is gone, even by SIGKILL; then nobody else removes the sockets' folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
