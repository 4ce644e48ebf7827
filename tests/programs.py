"""Programs that some tests drive."""

import os
import shutil


def find_program(name: str) -> str | None:
    """Path of an installed program, also in /usr/sbin, which is not on everybody's PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def program(name: str) -> str:
    """Path of a program that the ``program`` marker has checked."""
    path = find_program(name)
    if path is None:
        raise FileNotFoundError(name)
    return path
