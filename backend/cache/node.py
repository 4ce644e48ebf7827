"""A node of the radix tree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.cache.pages import Pages

Tokens = NDArray[np.int32]

NO_PAGES: Pages = np.empty(0, np.int32)


class Node:
    """One edge of the tree with the pages along it. ``locks`` counts the running rows that read these pages.

    ``pages`` is empty where only a host copy is left, ``host`` where there is none; the counts of children say how many
    of them have the one and the other. ``window`` has the pages of layers that see a window (see ``window_tree``).
    """

    __slots__ = (
        "children",
        "children_on_device",
        "children_on_host",
        "hits",
        "host",
        "key",
        "last_used",
        "locks",
        "pages",
        "parent",
        "priority",
        "window",
    )

    def __init__(
        self, parent: Node | None, key: Tokens, pages: Pages, last_used: int, hits: int = 0, priority: int = 0
    ) -> None:
        self.parent = parent
        self.key = key
        self.pages = pages
        self.host = NO_PAGES
        self.window = NO_PAGES
        self.children: dict[bytes, Node] = {}
        self.children_on_device = 0
        self.children_on_host = 0
        self.locks = 0
        self.last_used = last_used
        self.hits = hits
        self.priority = priority  # the highest of the requests that used it
