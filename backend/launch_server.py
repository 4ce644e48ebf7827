"""``launch_server``: one backend from a command line. Quick to import: the rest comes after the flags."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

PROG = "launch_server"
INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a stop that was asked for, 1 when the server could not start or failed, 2 for bad flags.

    130: Ctrl-C before there was a server to stop.
    """
    before = signal.signal(signal.SIGINT, _leave)
    try:
        from backend.flags.server import parse_server_args

        command = parse_server_args(sys.argv[1:] if argv is None else argv, PROG)
        if command.args.check is not None:
            from backend.check import report

            return report(command.args, PROG)
        from backend.api.serve import serve

        return serve(command.args, notes=command.accepted)
    except KeyboardInterrupt:  # after the server
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_: object) -> NoReturn:
    """Ctrl-C while modules are imported: there is nothing to tidy up. The server sets a handler of its own."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
