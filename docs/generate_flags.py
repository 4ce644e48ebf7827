"""Write docs/flags.md from the flag tables: ``python docs/generate_flags.py``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from backend.flags import Flag, State
from backend.flags.helptext import shown_default, usage
from backend.flags.server import SERVER_FLAGS
from router.flags import ROUTER_FLAGS

PAGE = Path(__file__).with_name("flags.md")
INTRODUCTION = """\
# Flags

Written by `python docs/generate_flags.py` from the tables in the code.

Every flag that users of SGLang, its router and vLLM know is in one of three states:

- **works**: it does what its name says;
- **accepted without effect**: answers, formats and protection are the same without it; the start logs the reason once;
- **not yet**: it asks for something that is missing; any value but the default stops the start with exit status 2.

Underscores may stand for dashes. `--config FILE.yaml` holds the same names as a map; the command line wins.
"""


def page() -> str:
    """The whole of docs/flags.md."""
    lines = [INTRODUCTION]
    lines += _program("launch_router", ROUTER_FLAGS)
    lines += _program("launch_server", SERVER_FLAGS)
    return "\n".join(lines) + "\n"


def _program(name: str, rows: Sequence[Flag]) -> Iterator[str]:
    yield f"## {name}\n"
    yield from _works([row for row in rows if row.state is State.WORKS])
    for state in (State.ACCEPTED, State.NOT_YET):
        some = [row for row in rows if row.state is state]
        if some:
            yield from _known(state, some)


def _works(rows: Sequence[Flag]) -> Iterator[str]:
    for group in dict.fromkeys(row.group for row in rows):
        yield f"### {name_of(group)}\n\n| flag | default | meaning |\n|---|---|---|"
        for row in rows:
            if row.group == group:
                yield f"| `{cell(usage(row))}` | {cell(shown_default(row))} | {cell(row.help)} |"
        yield ""


def _known(state: State, rows: Sequence[Flag]) -> Iterator[str]:
    yield f"### {name_of(state.value)}\n\n| about | flags | reason | known from |\n|---|---|---|---|"
    alike: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for row in rows:
        alike.setdefault((row.group, row.reason, row.sources), []).extend(f"`{name}`" for name in row.spellings)
    for (group, reason, sources), names in alike.items():
        yield f"| {group} | {', '.join(names)} | {cell(reason)} | {', '.join(sources)} |"
    yield ""


def name_of(group: str) -> str:
    """A group's name as a headline."""
    return group[:1].upper() + group[1:]


def cell(text: str) -> str:
    """``text`` inside a table cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
