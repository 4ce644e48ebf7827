"""Which Python a benchmark ran on: one that was built without optimisation takes 1.4 times the CPU for one router."""

from __future__ import annotations

import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

OPTIONS = {"PGO": "--enable-optimizations", "LTO": "--with-lto"}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """``optimised``: PGO and LTO, as far as the arguments of its ``configure`` tell.

    Debian's is built with both, and tells of neither: it asks for them in another way.
    """

    version: str
    compiler: str
    path: str  # of the interpreter itself, not of an environment
    optimised: tuple[str, ...]

    def __str__(self) -> str:
        told = " and ".join(self.optimised) or "neither PGO nor LTO told"
        return f"Python {self.version} ({self.path}, {self.compiler}, {told})"


def this() -> Interpreter:
    """The one that runs."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    path = str(Path(sys.executable).resolve())
    return Interpreter(platform.python_version(), platform.python_compiler(), path, optimised(arguments))


def optimised(arguments: str) -> tuple[str, ...]:
    """What ``configure`` was asked for."""
    return tuple(name for name, option in OPTIONS.items() if option in arguments)
