"""Short constructors, so that a row of the table fits on a line, and :func:`section` for what rows share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from backend.flags.flag import Flag, Kind, State


def switch(*names: str, **more: Any) -> Flag:
    """A flag without a word."""
    return Flag(names, Kind.SWITCH, **more)


def integer(*names: str, **more: Any) -> Flag:
    """A whole number."""
    return Flag(names, Kind.INT, **more)


def number(*names: str, **more: Any) -> Flag:
    """A number."""
    return Flag(names, Kind.FLOAT, **more)


def text(*names: str, **more: Any) -> Flag:
    """A word, one of ``choices`` if there are any."""
    return Flag(names, Kind.STR, **more)


def words(*names: str, **more: Any) -> Flag:
    """Any number of words; the flag may be repeated and adds up."""
    return Flag(names, Kind.LIST, **{"default": [], **more})


def groups(*names: str, **more: Any) -> Flag:
    """Words; each time the flag is given adds one list of them."""
    return Flag(names, Kind.GROUPS, **{"default": [], **more})


def section(
    group: str,
    rows: Iterable[Flag],
    *,
    state: State | None = None,
    reason: str = "",
    sources: tuple[str, ...] = (),
) -> tuple[Flag, ...]:
    """``rows`` of one group, with what they share; a row's own reason stays."""
    return tuple(
        replace(row, group=group, state=state or row.state, reason=row.reason or reason, sources=sources or row.sources)
        for row in rows
    )


def works(group: str, *rows: Flag) -> tuple[Flag, ...]:
    """Flags that do what they say."""
    return section(group, rows)


def accepted(group: str, reason: str, *rows: Flag, sources: tuple[str, ...] = ()) -> tuple[Flag, ...]:
    """Flags without effect: answers, formats and protection are the same without them."""
    return section(group, rows, state=State.ACCEPTED, reason=reason, sources=sources)


def not_yet(group: str, reason: str, *rows: Flag, sources: tuple[str, ...] = ()) -> tuple[Flag, ...]:
    """Flags that ask for something that is missing: a value other than the default stops the start."""
    return section(group, rows, state=State.NOT_YET, reason=reason, sources=sources)
