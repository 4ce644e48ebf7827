"""The page allocator: a stack of free page numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PADDING_PAGE = 0  # never allocated: padding rows write their keys and values there

Pages = NDArray[np.int32]


class PageAllocator:
    """Hands out page numbers ``1..num_pages`` and takes them back.

    It knows only which pages are free; who owns a page that is out is the caller's business (a running row or the radix
    tree, never both).
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._stack: Pages = np.arange(num_pages, 0, -1, dtype=np.int32)
        self._free = num_pages

    @property
    def free_pages(self) -> int:
        return self._free

    def alloc(self, count: int) -> Pages:
        """Take ``count`` pages, int32[count]. The caller has checked ``free_pages``; ``MemoryError`` otherwise."""
        if count > self._free:
            raise MemoryError(f"{count} pages wanted, {self._free} free")
        self._free -= count
        return self._stack[self._free : self._free + count][::-1].copy()

    def release(self, pages: Pages) -> None:
        """Give ``pages`` back; each must be out."""
        count = len(pages)
        if self._free + count > self.num_pages:
            raise ValueError(f"{count} pages released, but only {self.num_pages - self._free} are out")
        self._stack[self._free : self._free + count] = pages
        self._free += count

    def free_list(self) -> Pages:
        """The free pages, for invariant checks."""
        return self._stack[: self._free].copy()
