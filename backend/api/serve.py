"""A server in an event loop of its own, until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Sequence

from backend.api.server import Server, StartError
from backend.config import ServerArgs
from backend.frontend.process import SchedulerTarget, run_real_scheduler

PROG = "launch_server"
COLLECT_AFTER = 20_000  # new objects: by default a crowd of requests is looked through again for each few of them
logger = logging.getLogger("backend")


def serve(args: ServerArgs, target: SchedulerTarget = run_real_scheduler, notes: Sequence[str] = ()) -> int:
    """Run one backend until SIGTERM or SIGINT; a failure to start is one line on stderr.

    ``notes`` are logged first. Returns the exit status.
    """
    logging.basicConfig(
        level=args.log_level.upper(), format="%(asctime)s %(levelname)s server: %(message)s", stream=sys.stderr
    )
    for note in notes:
        logger.warning(note)
    gc.set_threshold(COLLECT_AFTER)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(_serve_until_signal(args, target))
    except StartError as error:
        sys.stderr.write(f"{PROG}: error: {error}\n")
        return 1


async def _serve_until_signal(args: ServerArgs, target: SchedulerTarget) -> int:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def interrupt() -> None:
        """Ctrl-C: the first one lets running requests finish, the second one does not."""
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    return await Server(args, target).run(stop, hurry)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not made for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
