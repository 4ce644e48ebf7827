"""Command-line flags as one table of rows, each with a state: works, accepted without effect, not yet.

A leaf without torch: ``backend`` and ``router`` both build their command lines, their ``--help`` and ``docs/flags.md``
from rows of :class:`Flag`.
"""

from backend.flags.checks import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, PORT, POSITIVE, Check
from backend.flags.flag import Flag, Kind, State, section
from backend.flags.parser import FlagParser, ParsedFlags, build_parser, parse

__all__ = [
    "AT_LEAST_ONE",
    "FRACTION",
    "NOT_NEGATIVE",
    "PORT",
    "POSITIVE",
    "Check",
    "Flag",
    "FlagParser",
    "Kind",
    "ParsedFlags",
    "State",
    "build_parser",
    "parse",
    "section",
]
