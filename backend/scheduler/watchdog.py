"""Ends a scheduler whose step hangs, with the stacks of all threads in the log."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

EXIT_CODE = 70  # EX_SOFTWARE: the server tells its requests and ends
CHECKS_PER_TIMEOUT = 10


class Watchdog:
    """Calls ``bark`` once when a step takes longer than ``timeout`` seconds.

    ``describe`` says what the step was doing.
    """

    def __init__(self, timeout: float, describe: Callable[[], str], bark: Callable[[str], None] | None = None) -> None:
        self._timeout = timeout
        self._describe = describe
        self._bark = bark or end_process
        self._busy_since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def begin(self, now: float) -> None:
        """A step begins at ``now`` (``time.monotonic``)."""
        self._busy_since = now

    def end(self) -> None:
        self._busy_since = None

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(self._timeout / CHECKS_PER_TIMEOUT):
            since = self._busy_since
            if since is not None and time.monotonic() - since > self._timeout:
                self._bark(f"no step ended for {self._timeout:g} s (--watchdog-timeout); {self._describe()}")
                return


def end_process(message: str) -> None:
    """Log ``message`` and the stacks of all threads, then end at once: a hung step cannot be interrupted."""
    logger.critical("%s", message)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_CODE)
