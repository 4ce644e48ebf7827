"""The prefix cache of one simulated engine: blocks, least recently used first, never evicted while in use.

The blocks of one segment are always used together, from the first on, so they are kept as one entry with the number of
its leading tokens that are resident. Eviction takes blocks from an entry's end: the result is that of a list of single
blocks in which a request gives back its last block first, at a fraction of the time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class _Entry:
    """One segment. ``tokens`` are resident, ``ready`` of them computed; ``users`` are requests that pin it."""

    __slots__ = ("ready", "tokens", "users")

    def __init__(self) -> None:
        self.tokens = 0
        self.ready = 0
        self.users = 0


class PrefixCache:
    """``capacity`` tokens of KV in blocks of ``block`` tokens, shared by cached prefixes and running requests."""

    def __init__(self, capacity: int, block: int = 16) -> None:
        if capacity < block or block < 1:
            raise ValueError(f"the cache needs at least one block of {block} tokens, got {capacity}")
        self.capacity = capacity
        self.block = block
        self._entries: dict[int, _Entry] = {}
        self._idle: OrderedDict[int, _Entry] = OrderedDict()  # entries without users, the next victim first
        self._idle_tokens = 0
        self._used = 0

    @property
    def free(self) -> int:
        """Tokens that hold nothing."""
        return self.capacity - self._used

    @property
    def available(self) -> int:
        """Tokens that hold nothing or can be evicted."""
        return self.free + self._idle_tokens

    def match(self, segments: Sequence[int], sizes: Sequence[int]) -> int:
        """Leading tokens of a prompt that need not be computed; its last token always is."""
        matched = 0
        for segment, size in zip(segments, sizes, strict=True):
            entry = self._entries.get(segment)
            ready = min(entry.ready, size) if entry is not None else 0
            matched += ready
            if ready < size:
                return matched // self.block * self.block
        return (matched - 1) // self.block * self.block

    def acquire(self, segments: Sequence[int], sizes: Sequence[int], output: int) -> int | None:
        """Pin a prompt and room for ``output`` tokens. Returns the cached tokens, or None when there is no room."""
        cached = self.match(segments, sizes)
        missing = output
        pinned = 0  # tokens that stop being evictable
        for segment, size in zip(segments, sizes, strict=True):
            entry = self._entries.get(segment)
            if entry is None:
                missing += size
                continue
            missing += max(0, size - entry.tokens)
            if not entry.users:
                pinned += entry.tokens
        if missing > self.available - pinned:
            return None
        self._pin(segments)
        self._evict(missing)
        for segment, size in zip(segments, sizes, strict=True):
            entry = self._entries[segment]
            entry.tokens = max(entry.tokens, size)
        self._used += missing
        return cached

    def commit(self, segments: Sequence[int], sizes: Sequence[int]) -> None:
        """The pinned prompt is computed: others may use it from now on."""
        for segment, size in zip(segments, sizes, strict=True):
            entry = self._entries[segment]
            entry.ready = max(entry.ready, size)

    def release(self, segments: Sequence[int], output: int, answer: int | None) -> None:
        """Unpin. The ``output`` tokens become the segment ``answer``, or are forgotten when nobody will ask again."""
        self._keep_answer(output, answer)
        for segment in reversed(segments):
            entry = self._entries[segment]
            entry.users -= 1
            if not entry.users:
                self._idle[segment] = entry
                self._idle_tokens += entry.tokens

    def _keep_answer(self, output: int, answer: int | None) -> None:
        if answer is None or answer in self._entries:
            self._used -= output
            return
        entry = self._entries[answer] = self._idle[answer] = _Entry()
        entry.tokens = entry.ready = output
        self._idle_tokens += output

    def _pin(self, segments: Sequence[int]) -> None:
        for segment in segments:
            entry = self._entries.get(segment)
            if entry is None:
                entry = self._entries[segment] = _Entry()
            elif not entry.users:
                del self._idle[segment]
                self._idle_tokens -= entry.tokens
            entry.users += 1

    def _evict(self, needed: int) -> None:
        """Make room for ``needed`` tokens; the caller has checked that it can be made."""
        while self.free < needed:
            segment, entry = next(iter(self._idle.items()))
            blocks = -(-(needed - self.free) // self.block)
            taken = min(entry.tokens, blocks * self.block)
            entry.tokens -= taken
            entry.ready = min(entry.ready, entry.tokens)
            self._used -= taken
            self._idle_tokens -= taken
            if not entry.tokens:
                del self._idle[segment]
                del self._entries[segment]
