"""Pages that rows and the prefix cache hold together; one is free when nobody holds it."""

from __future__ import annotations

import numpy as np

from backend.cache.pages import PageAllocator, Pages


class SharedPages:
    """Hands out page numbers ``1..num_pages``.

    ``readers`` counts the rows that hold a page, ``kept`` marks those of the cache. The padding page is never passed.
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self.idle_pages = 0  # kept, and read by nobody: they can be had
        self.readers = np.zeros(num_pages + 1, np.int32)
        self.kept = np.zeros(num_pages + 1, np.bool_)
        self._free = PageAllocator(num_pages)

    @property
    def free_pages(self) -> int:
        return self._free.free_pages

    def take(self, count: int) -> Pages:
        """``count`` pages with one reader each. ``MemoryError`` when so many are not free."""
        pages = self._free.alloc(count)
        self.readers[pages] = 1
        return pages

    def read(self, pages: Pages) -> None:
        """One more reader for each of ``pages``, which differ and are held by somebody."""
        self.idle_pages -= int(np.count_nonzero(self.readers[pages] == 0))
        self.readers[pages] += 1

    def drop(self, pages: Pages) -> None:
        """One reader less for each entry of ``pages``."""
        np.subtract.at(self.readers, pages, 1)
        left = np.unique(pages[self.readers[pages] == 0])
        kept = self.kept[left]
        self.idle_pages += int(np.count_nonzero(kept))
        self._free.release(left[~kept])

    def keep(self, pages: Pages) -> None:
        """The cache holds ``pages`` from now on, which have readers."""
        self.kept[pages] = True

    def forget(self, pages: Pages) -> None:
        """The cache lets go of ``pages``, which differ."""
        self.kept[pages] = False
        idle = pages[self.readers[pages] == 0]
        self.idle_pages -= len(idle)
        self._free.release(idle)

    def free_list(self) -> Pages:
        """The free pages, for invariant checks."""
        return self._free.free_list()
