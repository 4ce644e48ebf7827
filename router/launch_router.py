"""``launch_router``: from the command line to a running router. Quick to import: the rest comes after the flags."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from router.config import RouterConfig

PROG = "launch_router"
ABOUT = "A cache-aware router in front of LLM inference servers. With no --router-hosts it starts backends of its own."
INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT. Exit status 0: stopped, 1: cannot run, 2: a wrong flag or setting.

    130: Ctrl-C before there was a router to stop.
    """
    before = signal.signal(signal.SIGINT, _leave)
    try:
        config, notes = _configuration(sys.argv[1:] if argv is None else argv)
        from router.service import StartError, run

        try:
            run(config, notes)
        except StartError as error:
            _fail(1, str(error))
    except KeyboardInterrupt:  # after the router
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_: object) -> NoReturn:
    """Ctrl-C while modules are imported: there is nothing to tidy up. The router sets a handler of its own."""
    os._exit(INTERRUPTED)


def _configuration(argv: Sequence[str]) -> tuple[RouterConfig, list[str]]:
    """The settings, and what to log once about flags without effect."""
    from backend.flags import parse
    from router.config import ConfigError, RouterConfig
    from router.flags import ROUTER_FLAGS

    flags = parse(ROUTER_FLAGS, argv, PROG, ABOUT)
    try:
        return RouterConfig.from_values(flags.values), flags.accepted
    except ConfigError as error:
        _fail(2, str(error))


def _fail(status: int, message: str) -> NoReturn:
    sys.stderr.write(f"{PROG}: error: {message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
