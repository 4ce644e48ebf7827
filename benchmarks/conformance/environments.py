"""Where clients run: this environment, or one of their own that is made once and kept."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parents[1] / ".peers"
INSTALL_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Environment:
    """``alone``: packages installed without what they depend on. ``ours``: it also sees this environment's packages.

    Two of the clients are servers, too, whose dependencies bring gigabytes that a client never uses.
    """

    name: str
    packages: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    ours: bool = False

    def python(self) -> Path:
        """Its interpreter; the first time all is installed. Raises ``CalledProcessError`` and ``TimeoutExpired``."""
        folder = HOME / self.name
        python, done = folder / "bin" / "python", folder / "installed.txt"
        wanted = "\n".join([*self.packages, *self.alone])
        if done.is_file() and done.read_text() == wanted:
            return python
        venv.create(folder, with_pip=True, clear=True)
        if self.ours:
            _share(folder)
        for packages, flags in ((self.packages, ()), (self.alone, ("--no-deps",))):
            if packages:
                _install(python, *flags, *packages)
        done.write_text(wanted)
        return python


def _share(folder: Path) -> None:
    """Its own packages come first."""
    (target,) = folder.glob("lib/python*/site-packages")
    (target / "warmlane.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")


def _install(python: Path, *words: str) -> None:
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS, capture_output=True, text=True)


@dataclass(frozen=True, slots=True)
class Here:
    """This very environment."""

    name: str = "warmlane"

    def python(self) -> Path:
        return Path(sys.executable)
