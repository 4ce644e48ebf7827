"""One task for each worker, from when it comes until it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from router.fleet.worker import Worker


class WorkerTasks:
    """Runs ``work(worker)`` for each worker that is watched; ``what`` names the tasks."""

    def __init__(self, what: str, work: Callable[[Worker], Coroutine[Any, Any, None]]) -> None:
        self._what = what
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, worker: Worker) -> bool:
        return worker.url in self._tasks

    def start(self, worker: Worker) -> None:
        self.stop(worker)
        name = f"{self._what} {worker.url}"
        self._tasks[worker.url] = asyncio.get_running_loop().create_task(self._work(worker), name=name)

    def stop(self, worker: Worker) -> None:
        """The worker is gone."""
        if (task := self._tasks.pop(worker.url, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """End all of them, and wait until they are over."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
