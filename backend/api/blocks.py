"""An answer as a row of blocks (reasoning, text, call), each opened, filled and closed: how newer APIs tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from backend.api.parsers import Parsed, ToolCall


class Kind(Enum):
    REASONING = "reasoning"
    TEXT = "text"
    CALL = "call"


class Step(Enum):
    OPEN = "open"
    DELTA = "delta"
    CLOSE = "close"


@dataclass(slots=True)
class Block:
    index: int
    kind: Kind
    text: str = ""  # so far; of a call its arguments
    call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class Change:
    step: Step
    block: Block
    delta: str = ""


class Blocks:
    """Turns the pieces of one answer into changes of its blocks; at most one block is open."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._open: Block | None = None

    def push(self, parsed: Parsed) -> Iterator[Change]:
        """The changes that a piece brings."""
        for kind, text in ((Kind.REASONING, parsed.reasoning), (Kind.TEXT, parsed.content)):
            if text:
                yield from self._switch_to(kind)
                yield from self._fill(text)
        for call in parsed.calls:
            yield from self.close()
            yield from self._begin(Kind.CALL, call)
            yield from self._fill(call.arguments)

    def close(self) -> Iterator[Change]:
        """Close the open block, if one is."""
        if self._open is not None:
            closed, self._open = self._open, None
            yield Change(Step.CLOSE, closed)

    def _switch_to(self, kind: Kind) -> Iterator[Change]:
        if self._open is None or self._open.kind is not kind:
            yield from self.close()
            yield from self._begin(kind)

    def _begin(self, kind: Kind, call: ToolCall | None = None) -> Iterator[Change]:
        self._open = Block(len(self.blocks), kind, call=call)
        self.blocks.append(self._open)
        yield Change(Step.OPEN, self._open)

    def _fill(self, text: str) -> Iterator[Change]:
        if self._open is not None:
            self._open.text += text
            yield Change(Step.DELTA, self._open, text)


def blocks_of(parsed: Parsed) -> list[Block]:
    """The blocks of a whole answer."""
    blocks = Blocks()
    list(blocks.push(parsed))
    return blocks.blocks
