"""Starts the product's programs for a benchmark and stops them after it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

START_SECONDS = 120.0


def free_port(following: int = 0) -> int:
    """A port that nobody has, nor the ``following`` ones after it."""
    while True:
        with contextlib.ExitStack() as stack:
            port = _bound(stack, 0)
            try:
                for offset in range(1, following + 1):
                    _bound(stack, port + offset)
            except (OSError, OverflowError):  # taken, or beyond the last port
                continue
            return port


def _bound(stack: contextlib.ExitStack, port: int) -> int:
    probe = stack.enter_context(socket.socket())
    probe.bind(("127.0.0.1", port))
    return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(module: str, *args: str, port: int, path: str = "/health") -> Iterator[str]:
    """Run ``python -m module args`` until the block ends; yields its URL once ``path`` answers 200."""
    process = subprocess.Popen([sys.executable, "-m", module, *args], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url + path)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a program ended with exit code {process.returncode} before it answered {url}")
        if answers(url):
            return
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {START_SECONDS:.0f} s")


def answers(url: str) -> bool:
    """Did ``url`` answer 200?"""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
