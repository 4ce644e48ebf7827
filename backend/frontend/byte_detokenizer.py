"""Token ids to text where every token is some bytes: each is seen once, and only an unfinished character is held."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class ByteDetokenizer:
    """Decodes one growing sequence. ``table`` has the bytes of each id; ids beyond it have none."""

    __slots__ = ("_decoder", "_table", "_whole")

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._whole = True  # no character has begun that lacks bytes

    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with ``ids``."""
        table = self._table
        try:
            new = table[ids[0]] if len(ids) == 1 else b"".join([table[id] for id in ids])
        except IndexError:
            new = b"".join([table[id] for id in ids if id < len(table)])
        if self._whole:
            try:
                return new.decode()
            except UnicodeDecodeError:
                self._whole = False  # or it is broken; the decoder sees which
        text = self._decoder.decode(new)
        self._whole = not self._decoder.getstate()[0]
        return text

    def flush(self) -> str:
        """What is left at the end; an unfinished character comes out as U+FFFD."""
        return self._decoder.decode(b"", True)
