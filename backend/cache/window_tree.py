"""The radix cache of models some of whose layers see a window: those keep pages of their own, and not all of them.

Beside its pages a node has the window layers' pages along its edge, 0 where there is none any more. A prefix can be
continued when the pages of the last window before its end are there; what lies before them is of use only to prefixes
that end earlier.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backend.cache.eviction import EVICTION_POLICIES
from backend.cache.node import NO_PAGES, Node, Tokens
from backend.cache.pages import PADDING_PAGE, Pages
from backend.cache.radix import Match, RadixCache
from backend.cache.shared_pages import SharedPages

LEAST_EVICTED = 16  # one in so many pages at once: finding out which go first looks at every node


class WindowTree(RadixCache):
    """``shared`` are the pages of the window layers, ``window`` how many tokens those see."""

    def __init__(self, page_size: int, eviction: str, window: int, shared: SharedPages) -> None:
        """``ValueError`` for an unknown eviction policy."""
        super().__init__(page_size, eviction)
        self.tail = -(-(window - 1) // page_size)  # pages that the next token sees, where there are so many
        self._shared = shared
        self._rank = EVICTION_POLICIES[eviction]

    # -- lookup -----------------------------------------------------------------------------------------------------

    def match(self, tokens: Tokens, namespace: str = "") -> Match:
        """The longest cached prefix that can be continued."""
        return super().match(tokens[: self.matched_tokens(tokens, namespace)], namespace)

    def matched_tokens(self, tokens: Tokens, namespace: str = "") -> int:
        root = self._roots.get(namespace)
        if root is None:
            return 0
        parts = [node.window[: shared // self.page_size] for node, shared in self._walk(root, tokens)]
        return self._continuable(np.concatenate(parts)) * self.page_size if parts else 0

    def window_of(self, node: Node) -> Pages:
        """The window layers' pages of the prefix that ends with ``node``, 0 before those that its next token sees."""
        parts = [each.window for each in self._path(node)]
        pages = np.concatenate(parts[::-1]) if parts else np.empty(0, np.int32)
        pages[: max(len(pages) - self.tail, 0)] = PADDING_PAGE
        return pages

    def _continuable(self, window: Pages) -> int:
        """How many of the pages are the longest part at whose end the last window is complete."""
        counts = np.arange(1, len(window) + 1)
        unbroken = counts - np.maximum.accumulate(np.where(window == PADDING_PAGE, counts, 0))
        complete = (unbroken >= np.minimum(counts, self.tail)).nonzero()[0]
        return int(counts[complete[-1]]) if len(complete) else 0

    # -- change -----------------------------------------------------------------------------------------------------

    def adopt(self, node: Node, window: Pages) -> Pages:
        """Take over what the prefix up to ``node`` lacks from a row's ``window`` pages for it (0: it has none).

        Returns the tree's pages. Due after each :meth:`insert`.
        """
        end, parts = len(window), []
        for each in self._path(node):
            own = window[end - len(each.pages) : end]
            if not len(each.window):
                each.window = np.full(len(own), PADDING_PAGE, np.int32)
            lacks = (each.window == PADDING_PAGE) & (own != PADDING_PAGE)
            each.window[lacks] = own[lacks]
            self._shared.keep(own[lacks])
            parts.append(each.window)
            end -= len(own)
        return np.concatenate(parts[::-1]) if parts else window

    def make_room(self, count: int) -> Pages:
        """Let go of window pages that nobody reads until ``count`` of the shared ones are free, or more.

        First those that are of use only to prefixes which end where nothing ended or parted so far, then the rest, each
        in the order of the eviction policy. What can be continued nowhere after that leaves the tree; returns its
        pages of the other layers.
        """
        self._forget_idle(max(count, self._shared.num_pages // LEAST_EVICTED))
        below_first = reversed(list(self.nodes()))
        freed = [self._remove(node) for node in below_first if self._is_useless(node)]
        return np.concatenate(freed) if freed else NO_PAGES

    def _forget_idle(self, wanted: int) -> None:
        nodes = sorted(self.nodes(), key=self._rank)
        for parts in (self._insides(nodes), (node.window for node in nodes)):
            for pages in parts:
                if self._shared.free_pages >= wanted:
                    return
                idle = (pages != PADDING_PAGE) & (self._shared.readers[pages] == 0)
                self._shared.forget(pages[idle])
                pages[idle] = PADDING_PAGE

    def _insides(self, nodes: list[Node]) -> Iterator[Pages]:
        """What of each node's pages is not seen from a place where a sequence ends or sequences part."""
        seen: dict[Node, int] = {}  # how many of a node's last pages are
        for node in reversed(list(self.nodes())):  # children before their parents
            below = list(node.children.values())
            seen[node] = self.tail if len(below) != 1 else max(seen[below[0]] - len(below[0].window), 0)
        return (node.window[: max(len(node.window) - seen[node], 0)] for node in nodes)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _is_useless(self, node: Node) -> bool:
        """A leaf without any page of the window: no sequence that ends in it can be continued."""
        is_idle_leaf = node.parent is not None and not node.children and node.locks == 0
        return is_idle_leaf and self.tail > 0 and not np.count_nonzero(node.window != PADDING_PAGE)

    def _let_go(self, node: Node) -> Pages:
        freed = []
        while True:
            parent = node.parent
            freed.append(self._remove(node))
            if parent is None or not self._is_useless(parent):
                return np.concatenate(freed)
            node = parent

    def _split(self, node: Node, at: int) -> Node:
        upper = super()._split(node, at)
        pages = at // self.page_size
        upper.window, node.window = node.window[:pages], node.window[pages:]
        return upper

    def _remove(self, node: Node) -> Pages:
        self._shared.forget(node.window[node.window != PADDING_PAGE])
        return super()._remove(node)
