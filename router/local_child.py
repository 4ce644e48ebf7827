"""``python -m router.local_child PARENT COMMAND...``: becomes COMMAND, and ends when the process PARENT ends.

A router that is killed cannot stop its backends; the kernel can (Linux: the parent-death signal, which outlives exec).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Never returns."""
    parent, command = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before the signal was set
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
