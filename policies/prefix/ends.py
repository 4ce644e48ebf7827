"""The ends of one holder's prompts, oldest first: a linked list, so that each place costs nothing but two pointers."""

from __future__ import annotations

NO_LIMIT = 2**63


class Link:
    """A place in a holder's list, outside of which nothing is set. ``stamp``: when a prompt last ended there."""

    __slots__ = ("next", "prev", "stamp")
    __deletable__ = ("next", "prev")  # for the compiled build

    prev: Link
    next: Link
    stamp: float


class Holder(Link):
    """One worker: its bit in the masks, the text it holds, and the list of its ends, whose anchor it is.

    The oldest end is always a leaf of this holder: an insert drops the ends that it passes, so an end above another one
    is the younger of the two. ``order``: holders that came earlier have lower ones.
    """

    __slots__ = ("bit", "limit", "listed", "order", "size")

    def __init__(self, bit: int, order: int = 0, limit: int = NO_LIMIT) -> None:
        self.prev = self.next = self
        self.bit = bit
        self.order = order
        self.limit = limit
        self.size = 0
        self.listed = 0  # the size under which :class:`policies.prefix.fullest.Fullest` knows it

    @property
    def oldest(self) -> Link | None:
        return None if self.next is self else self.next

    @property
    def several(self) -> bool:
        """Are there at least two ends?"""
        return self.next is not self.prev

    def append(self, link: Link, stamp: float) -> None:
        """``link`` is the youngest from now on."""
        link.stamp = stamp
        last = self.prev
        link.prev, link.next = last, self
        last.next = self.prev = link

    def put_first(self, link: Link, stamp: float) -> None:
        """``link`` is the oldest from now on."""
        link.stamp = stamp
        first = self.next
        link.prev, link.next = self, first
        first.prev = self.next = link

    def pushed_out(self, text_bytes: int) -> tuple[int, float]:
        """How many bytes it would lose to ``text_bytes`` new ones, and when the first victim was last used."""
        first = self.next
        return (0, 0.0) if first is self else (max(0, self.size + text_bytes - self.limit), first.stamp)


def unlink(link: Link) -> None:
    """Take ``link`` out of its list."""
    before, after = link.prev, link.next
    before.next, after.prev = after, before
    del link.prev, link.next


def take_place(link: Link, other: Link) -> None:
    """``link`` stands where ``other`` stood."""
    before, after = other.prev, other.next
    link.stamp = other.stamp
    link.prev, link.next = before, after
    before.next = after.prev = link
    del other.prev, other.next
