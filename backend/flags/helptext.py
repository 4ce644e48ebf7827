"""The text of ``--help``: what works, by group; ``--help-all`` adds the flags that are only known."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from backend.flags.flag import Flag, Kind, State

WIDTH = 110
NAME_COLUMN = 34
_UNITS = {Kind.INT: "N", Kind.FLOAT: "X"}


def help_text(prog: str, description: str, rows: Sequence[Flag], everything: bool) -> str:
    """The whole text, ending with a newline."""
    lines = [f"usage: {prog} [--flag value ...] [--config FILE.yaml]", "", *textwrap.wrap(description, WIDTH)]
    works = [row for row in rows if row.state is State.WORKS]
    for group in dict.fromkeys(row.group for row in works):
        lines += ["", f"{group}:"]
        for row in works:
            if row.group == group:
                lines += _entry(usage(row), _described(row))
    lines += ["", "help and configuration:"]
    lines += _entry("--config FILE", "YAML map from flag names to values; the command line wins")
    lines += _entry("--help, --help-all, --version", "this text; also the flags that are only known; the version")
    lines += _known_only(rows, everything)
    return "\n".join(lines) + "\n"


def usage(row: Flag) -> str:
    """Spellings and value, as in ``--port PORT``."""
    names = ", ".join(row.spellings)
    value = _metavar(row)
    return f"{names} {value}" if value else names


def shown_default(row: Flag) -> str:
    """The default for a reader, as it would be typed: empty when there is nothing to say."""
    if row.default is None or row.default is False or row.default == []:
        return ""
    if isinstance(row.default, list):
        return " ".join(map(str, row.default))
    return f"{row.default:g}" if isinstance(row.default, float) else str(row.default)


def _metavar(row: Flag) -> str:
    word = row.metavar or ("|".join(row.choices) if row.choices else _UNITS.get(row.kind, "WORD"))
    forms: dict[Kind, str] = {
        Kind.SWITCH: "",
        Kind.LIST: f"{row.metavar or 'WORD'} ...",
        Kind.GROUPS: f"{row.metavar or 'WORD'} ...",
        Kind.OPTIONAL: f"[{row.metavar or 'WORD'}]",
    }
    return forms.get(row.kind, word)


def _described(row: Flag) -> str:
    default = shown_default(row)
    return f"{row.help} (default {default})" if default else row.help


def _entry(name: str, text: str) -> Iterable[str]:
    head = f"  {name}"
    column = " " * NAME_COLUMN
    body = textwrap.wrap(text, WIDTH - NAME_COLUMN) or [""]
    if len(head) < NAME_COLUMN - 1:
        return [f"{head:<{NAME_COLUMN}}{body[0]}".rstrip(), *(column + line for line in body[1:])]
    return [head, *(column + line for line in body if line)]


def _known_only(rows: Sequence[Flag], everything: bool) -> list[str]:
    lines: list[str] = []
    for state in (State.ACCEPTED, State.NOT_YET):
        some = [row for row in rows if row.state is state]
        if not some:
            continue
        if not everything:
            lines += ["", f"{state.value}: {len(some)} more flags (--help-all)"]
            continue
        lines += ["", f"{state.value}:"]
        for reason in dict.fromkeys(row.reason for row in some):
            names = ", ".join(row.names[0] for row in some if row.reason == reason)
            lines += textwrap.wrap(f"{reason}: {names}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines
