"""Real processes for the end-to-end tests: started on free ports, always stopped, their logs kept for failures."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

POLL_SECONDS = 0.05
LOG_TAIL = 4000  # characters of a log that a failure shows
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll ``condition``; raise ``TimeoutError`` naming ``what`` when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(POLL_SECONDS)


@dataclass(slots=True)
class Process:
    """One running program, in a process group of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    log_path: Path
    url: str = ""

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def log(self) -> str:
        """The end of what it wrote to stdout and stderr."""
        return self.log_path.read_text(errors="replace")[-LOG_TAIL:]

    def wait_ready(self, path: str, seconds: float) -> None:
        """Wait for a 200 from ``path``; a program that ends before that is an error with its log."""
        wait_until(lambda: self._answers(path), seconds, f"{self.name} to answer {self.url}{path}")

    def _answers(self, path: str) -> bool:
        if not self.running:
            raise RuntimeError(f"{self.name} ended with status {self.popen.returncode}:\n{self.log()}")
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url + path, timeout=5, trust_env=False).status_code == 200
        return False

    def kill(self) -> None:
        """End the whole process group at once, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def stop(self, seconds: float = 15) -> int:
        """Ask it to end, then insist; what it leaves of its group is killed. Returns its exit status."""
        if self.running:
            self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(seconds)
        self.kill()
        return self.popen.returncode


@dataclass(slots=True)
class Processes:
    """Starts programs and stops whatever is still there at the end."""

    folder: Path
    all: list[Process] = field(default_factory=list)

    def start(self, name: str, argv: Sequence[str], url: str = "", env: Mapping[str, str] | None = None) -> Process:
        """Start ``argv`` in the root of the checkout; its output goes to a log file."""
        log_path = self.folder / f"{len(self.all):02d}-{name}.log"
        with log_path.open("wb") as log:
            popen = subprocess.Popen(
                list(argv),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        process = Process(name, popen, log_path, url)
        self.all.append(process)
        return process

    def python(self, name: str, module: str, *flags: str, port: int) -> Process:
        """Start ``python -m module flags --port port``."""
        argv = [sys.executable, "-m", module, *flags, "--port", str(port)]
        return self.start(name, argv, f"http://127.0.0.1:{port}")

    def stop_all(self) -> None:
        """Stop in the opposite order of starting."""
        for process in reversed(self.all):
            process.stop()
