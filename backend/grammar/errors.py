"""The one error of this room."""

from __future__ import annotations


class GrammarError(ValueError):
    """A constraint that cannot be compiled, or that can no longer be followed; one line for the client."""
