"""Command-line flags as one table of rows, each with a state: works, accepted without effect, not yet.

A leaf without torch: ``backend`` and ``router`` both build their command lines, their ``--help`` and ``docs/flags.md``
from rows of :class:`Flag`.
"""

from backend.flags.checks import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, PORT, POSITIVE, Check
from backend.flags.flag import Flag, Kind, State
from backend.flags.parser import FlagParser, ParsedFlags, build_parser, parse
from backend.flags.rows import accepted, groups, integer, not_yet, number, section, switch, text, words, works
from backend.flags.values import FlagError

__all__ = [
    "AT_LEAST_ONE",
    "FRACTION",
    "NOT_NEGATIVE",
    "PORT",
    "POSITIVE",
    "Check",
    "Flag",
    "FlagError",
    "FlagParser",
    "Kind",
    "ParsedFlags",
    "State",
    "accepted",
    "build_parser",
    "groups",
    "integer",
    "not_yet",
    "number",
    "parse",
    "section",
    "switch",
    "text",
    "words",
    "works",
]
