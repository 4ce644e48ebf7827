"""A bounded queue that is fair between keys: first come, first served within a key, and keys take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Lanes by key. When it is full, a key with fewer waiting items displaces the newest item of the longest lane."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lanes: OrderedDict[str, deque[T]] = OrderedDict()  # the first lane has the next turn; none is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, key: str, item: T) -> tuple[bool, T | None]:
        """(was it taken, what it displaced)."""
        displaced = None
        if self._count >= self._size:
            if (longest := self._displaced_by(key)) is None:
                return False, None
            displaced = self._lanes[longest].pop()
            self._count -= 1
        self._lanes.setdefault(key, deque()).append(item)
        self._count += 1
        return True, displaced

    def takes(self, key: str) -> bool:
        """Would an item of ``key`` be taken now?"""
        return self._count < self._size or self._displaced_by(key) is not None

    def remove(self, key: str, item: T) -> None:
        """Take ``item`` out, if it still waits."""
        lane = self._lanes.get(key)
        if lane is None or item not in lane:
            return
        lane.remove(item)
        self._taken(key, lane)

    def pop(self, ready: Callable[[T], bool]) -> T | None:
        """The next item that ``ready`` accepts; None when there is none. Its key goes to the end of the turns."""
        for key, lane in self._lanes.items():
            for item in lane:
                if ready(item):
                    lane.remove(item)
                    self._lanes.move_to_end(key)
                    self._taken(key, lane)
                    return item
        return None

    def _displaced_by(self, key: str) -> str | None:
        """The lane whose newest item makes room for one of ``key`` in a full queue."""
        longest = max(self._lanes, key=lambda name: len(self._lanes[name]), default=None)
        if longest is None or len(self._lanes[longest]) <= len(self._lanes.get(key, ())) + 1:
            return None
        return longest

    def _taken(self, key: str, lane: deque[T]) -> None:
        self._count -= 1
        if not lane:
            del self._lanes[key]
