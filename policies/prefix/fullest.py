"""Who holds the most, without looking at all: a heap whose entries are put right when they come up."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace

from policies.prefix.ends import Holder

Entry = tuple[int, int, Holder]  # (size with a minus, order, holder)


class Fullest:
    """Holders by size; of equal ones the earliest. Tell it when one has grown; it finds out by itself who shrank."""

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._holders: set[Holder] = set()
        self._grown: set[Holder] = set()  # since somebody asked: an insert must not cost more than this

    def add(self, holder: Holder) -> None:
        self._holders.add(holder)
        self._list(holder)

    def remove(self, holder: Holder) -> None:
        """Its entries go when they come up."""
        self._holders.discard(holder)
        self._grown.discard(holder)

    def grown(self, holder: Holder) -> None:
        """``holder`` may be larger than it was listed."""
        self._grown.add(holder)

    def find(self) -> Holder:
        """The fullest one; there must be one."""
        while self._grown:
            holder = self._grown.pop()
            if holder.size > holder.listed:
                self._list(holder)
        heap = self._heap
        while True:
            size, order, holder = heap[0]
            if holder not in self._holders or -size != holder.listed:
                heappop(heap)
            elif holder.size != holder.listed:
                holder.listed = holder.size
                heapreplace(heap, (-holder.size, order, holder))
            else:
                return holder

    def _list(self, holder: Holder) -> None:
        holder.listed = holder.size
        heappush(self._heap, (-holder.size, holder.order, holder))
        if len(self._heap) > 4 * len(self._holders) + 64:  # most are out of date
            self._heap = [(-each.listed, each.order, each) for each in self._holders]
            heapify(self._heap)
