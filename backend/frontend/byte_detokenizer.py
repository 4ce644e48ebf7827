"""Token ids to text where every token is some bytes: each is seen once, and only an unfinished character is held."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class ByteDetokenizer:
    """Decodes one growing sequence. ``table`` has the bytes of each id; ids beyond it have none."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with ``ids``."""
        table = self._table
        try:
            return self._decode(b"".join([table[id] for id in ids]))
        except IndexError:
            return self._decode(b"".join([table[id] for id in ids if id < len(table)]))

    def flush(self) -> str:
        """What is left at the end; an unfinished character comes out as U+FFFD."""
        return self._decode(b"", True)
