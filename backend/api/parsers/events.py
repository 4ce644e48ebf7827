"""What a model's output is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class ToolCall(NamedTuple):
    """One complete call. ``arguments`` is the text of a JSON object; ``id`` is the model's own name for it, if any."""

    name: str
    arguments: str
    id: str = ""


class Parsed(NamedTuple):
    """A piece of an output, or all of it: pieces are concatenated part by part."""

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolCall, ...] = ()

    def __bool__(self) -> bool:
        return any(self)


def join(pieces: Iterable[Parsed]) -> Parsed:
    """Several pieces as one."""
    pieces = list(pieces)
    return Parsed(
        "".join(piece.reasoning for piece in pieces),
        "".join(piece.content for piece in pieces),
        tuple(call for piece in pieces for call in piece.calls),
    )
