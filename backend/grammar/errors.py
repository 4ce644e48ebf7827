"""The one error of this room."""

from __future__ import annotations

NO_GRAMMARS = "This server runs with --grammar-backend none: it cannot constrain an output."


class GrammarError(ValueError):
    """A constraint that cannot be compiled, or that can no longer be followed; one line for the client."""


class GrammarBusy(GrammarError):
    """No verdict: the grammar was not tried, since too much else was. It may be asked for again."""
