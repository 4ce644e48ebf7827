"""Backends of the router's own: child processes on free ports, kept running, stopped with the router."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from router.config import RouterConfig

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
LOCAL_KV_EVENTS = '{"endpoint": "tcp://127.0.0.1:*"}'  # a free port; /server_info tells which
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STEADY_SECONDS = 60.0  # after that long a backend's earlier deaths are forgotten
STOP_SECONDS = 15.0
LOG_LINES = 15
START_ERRORS = (1, 2)  # exit statuses of a backend that says in one line why it cannot start
ERROR_MARK = " error: "  # before that reason


class LocalBackendError(Exception):
    """Local backends cannot start; the text says why, or what one printed last."""


@dataclass(slots=True)
class _Backend:
    index: int
    port: int
    log_path: Path
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


class LocalBackends:
    """Starts ``count`` backends and restarts one that dies. ``command`` is what starts one, without its flags.

    Their output goes to files in ``log_dir``, else in a temporary folder, which is kept when one of them failed.
    """

    def __init__(self, command: Sequence[str], flags: Sequence[str], count: int, log_dir: Path | None = None) -> None:
        self._temporary = log_dir is None
        self._log_dir = log_dir or Path(tempfile.mkdtemp(prefix="warmlane-"))
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._command = [*command]
        self._flags = [*flags]
        threads = max(1, len(os.sched_getaffinity(0)) // count) if hasattr(os, "sched_getaffinity") else 1
        self._flags += ["--cpu-threads", str(threads)]
        self._backends = [
            _Backend(index, port, self._log_dir / f"backend-{index}.log")
            for index, port in enumerate(free_ports(count))
        ]
        self._keepers: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self._mourned = False  # one of them failed: its log may be wanted
        self.on_end: Callable[[str], None] = lambda _url: None  # is told of one that ended and will be restarted

    @classmethod
    def of(cls, config: RouterConfig) -> LocalBackends:
        """The backends that the configuration asks for."""
        flags: list[str] = []
        for name in ("model_path", "tokenizer_path", "chat_template", "revision", "download_dir", "log_level"):
            if (value := getattr(config, name)) is not None:
                flags += [f"--{name.replace('_', '-')}", str(value)]
        flags += ["--kv-events-config", LOCAL_KV_EVENTS]
        command = [sys.executable, "-m", "backend.launch_server"]
        return cls(command, flags, config.local_backends, Path(config.log_dir) if config.log_dir else None)

    @property
    def urls(self) -> list[str]:
        return [backend.url for backend in self._backends]

    @property
    def processes(self) -> list[int]:
        """The process ids of those that run."""
        running = [backend.process for backend in self._backends if backend.process is not None]
        return [process.pid for process in running if process.returncode is None]

    @property
    def log_paths(self) -> list[Path]:
        return [backend.log_path for backend in self._backends]

    async def start(self) -> asyncio.Future[None]:
        """Spawn all. The future fails with :class:`LocalBackendError` if one ends before :meth:`settled`."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        for backend in self._backends:
            await self._spawn(backend)
            self._keepers.append(loop.create_task(self._keep(backend), name=f"local backend {backend.index}"))
        return self._failed

    def failure(self, what: str) -> LocalBackendError:
        """The error that says ``what`` and where the logs are, which are then kept."""
        self._mourned = True
        between = "\n" if "\n" in what else "; "
        return LocalBackendError(f"{what}{between}logs: {self._log_dir}")

    def settled(self) -> None:
        """All were ready once: from now on one that ends is restarted."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(None)

    async def stop(self) -> None:
        """End all of them, politely first."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(_end(backend.process) for backend in self._backends if backend.process))
        if self._temporary and not self._mourned:
            await asyncio.to_thread(shutil.rmtree, self._log_dir, ignore_errors=True)
        elif self._mourned and self._settled:
            log.warning("the logs of the local backends are in %s", self._log_dir)

    async def _spawn(self, backend: _Backend) -> None:
        flags = ["--host", HOST, "--port", str(backend.port), *self._flags]
        guard = [sys.executable, "-m", "router.local_child", str(os.getpid())]
        with backend.log_path.open("ab") as output:
            backend.process = await asyncio.create_subprocess_exec(
                *guard,
                *self._command,
                *flags,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the router alone, which stops them in order
            )

    @property
    def _settled(self) -> bool:
        return self._failed is not None and self._failed.done() and self._failed.exception() is None

    async def _keep(self, backend: _Backend) -> None:
        deaths = 0
        while backend.process is not None:
            started = time.monotonic()
            code = await backend.process.wait()
            if not self._settled:
                self._give_up(backend, code)
                return
            self._mourned = True
            self.on_end(backend.url)
            deaths = 0 if time.monotonic() - started > STEADY_SECONDS else deaths
            pause = BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS) - 1)]
            deaths += 1
            log.warning("local backend %d ended with status %d; restarting in %g s", backend.index, code, pause)
            await asyncio.sleep(pause)
            await self._spawn(backend)

    def _give_up(self, backend: _Backend, code: int) -> None:
        """One ended before all were ready. The first one tells why; what follows it is of no interest."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(self.failure(_epitaph(backend, code)))


def free_ports(count: int) -> list[int]:
    """``count`` different ports that nobody listens on."""
    held = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


def _epitaph(backend: _Backend, code: int) -> str:
    """Why it could not start, in its own words if it found any, else all that it printed last."""
    lines = backend.log_path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    if code in START_ERRORS and lines and (reason := lines[-1].partition(ERROR_MARK)[2]):
        return f"local backend {backend.index} cannot start: {reason}"
    said = "\n  ".join(lines) if lines else "(it printed nothing)"
    return f"local backend {backend.index} ended with status {code} before it was ready. Its last words:\n  {said}"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
