"""A process that leaves its work to a child and has another one at once when that is killed.

Starting Python and its libraries takes longer than most grammars do. A child is a copy of a process that has them: it
is there in milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.connection import Connection

WELL = 0  # exit status of a child whose work is over


def work_in_children(pipe: Connection, work: Callable[[], None]) -> None:
    """Run ``work`` in a child until it returns. For each child that died first, send the number of the signal (or 0).

    The calling process must have a single thread.
    """
    while True:
        child = os.fork()
        if child == 0:
            _work(work)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == WELL:
            return
        try:
            pipe.send(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
        except OSError:  # the other end is gone: nobody wants to know
            return


def _work(work: Callable[[], None]) -> None:
    status = WELL + 1
    try:
        work()
        status = WELL
    finally:
        os._exit(status)
