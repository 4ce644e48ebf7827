"""How a format's calls are written: what a grammar needs to hold their arguments to the tools' schemas.

In the texts ``$NAME`` stands for the tool, ``$KEY`` for a parameter, ``$INDEX`` for a number, ``$ID`` for a name of the
call, and ``$BR`` for a newline that may be left out.
"""

from __future__ import annotations

from typing import NamedTuple


class CallShape(NamedTuple):
    """One way to write calls: ``opens``, for each ``begin``, its arguments as JSON and ``end``, then ``closes``."""

    begin: str
    end: str
    between: str = ""
    opens: str = ""
    closes: str = ""
    parameter: tuple[str, str] | None = None  # around each value, where arguments are no JSON: texts bare, others JSON


class CallForm(NamedTuple):
    """Calls come in groups: ``trigger``, then calls of one shape."""

    trigger: str  # wherever it stands a group begins
    shapes: tuple[CallShape, ...]
    bare: str = ""  # an expression for what a group begins with where the answer does, without a trigger
