"""What a person at a terminal sees while local backends start, and when the router is ready."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from router.config import RouterConfig

log = logging.getLogger("router")

LINE_SECONDS = 10.0  # between lines when stderr is no terminal

EXAMPLE = (
    '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 32}'
)


class Progress:
    """One line that is rewritten in place on a terminal, else a line now and then."""

    def __init__(self, total: int, log_paths: Sequence[Path], stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._next_line = self._started
        self._write(f"Starting {total} local backends; logs: {log_paths[0].parent}\n")

    def show(self, ready: int) -> None:
        seconds = time.monotonic() - self._started
        line = f"Waiting for local backends: {ready} of {self._total} ready, {seconds:.0f} s"
        if self._terminal:
            self._write(f"\r{line} ")
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self._write(f"{line}\n")

    def done(self) -> None:
        if self._terminal:
            self._write("\r" + " " * 70 + "\r")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def announce(config: RouterConfig, port: int) -> None:
    """Say where the router listens and how to try it."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::", "") else config.host
    scheme = "http" if config.tls_cert_path is None else "https"
    address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    if not config.own_backends:
        log.info("listening on %s, policy %s, %s", address, config.policy, _workers(config))
        return
    sys.stdout.write(
        f"\nReady: {address}  ({config.local_backends} local backends, policy {config.policy}). Try:\n\n"
        f"  curl {address}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"    -d '{EXAMPLE}'\n\n"
        f"  curl {address}/metrics\n\nCtrl-C stops everything.\n"
    )
    sys.stdout.flush()


def _workers(config: RouterConfig) -> str:
    """Where they come from."""
    hosts = len(config.router_hosts)
    named = [f"{hosts} workers"] if hosts else []
    if config.workers_file:
        named.append(f"workers from {config.workers_file}")
    if config.service_discovery:
        named.append("workers from Kubernetes")
    return ", ".join(named) or "no workers yet (POST /workers)"
