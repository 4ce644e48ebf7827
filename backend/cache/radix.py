"""The radix prefix cache: which pages hold the keys and values of which token sequence.

Keys are cut at page boundaries, so an edge is a whole number of pages and children are told apart by their first page.
Requests of different namespaces (cache salt, adapter) live under different roots and never share a page.

Algorithm: radix tree with eviction of unlocked leaves, after Zheng et al., "SGLang: Efficient Execution of
Structured Language Model Programs" (2024), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backend.cache.events import CacheLog
from backend.cache.eviction import EvictionQueue
from backend.cache.node import NO_PAGES, Node, Tokens
from backend.cache.pages import Pages


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached prefix: the node that ends it (lock it before pages are read), and its pages on the device.

    ``absent`` more pages of it are on the host only and must be fetched.
    """

    node: Node
    pages: Pages
    absent: int = 0


class RadixCache:
    """Radix tree over page-aligned token sequences.

    Every page in the tree is owned by it. A page leaves only through :meth:`evict` or :meth:`reset`, and never while a
    lock covers it. The clock is a counter of operations, so that behaviour depends on nothing but the calls made.
    """

    def __init__(self, page_size: int, eviction: str = "lru") -> None:
        """``eviction`` is one of ``EVICTION_POLICIES``; ``ValueError`` otherwise."""
        self.page_size = page_size
        self.cached_pages = 0
        self.evictable_pages = 0
        self._roots: dict[str, Node] = {}
        self._clock = 0
        self._nodes = 0
        self._leaves = EvictionQueue(eviction, _is_evictable)
        self.log: CacheLog | None = None  # notes what is stored and removed, when somebody wants to know

    # -- lookup -----------------------------------------------------------------------------------------------------

    def match(self, tokens: Tokens, namespace: str = "") -> Match:
        """The longest cached prefix of ``tokens``, in whole pages. Splits an edge where the match ends inside it."""
        return self._longest(tokens, namespace, uses=1)

    def matched_tokens(self, tokens: Tokens, namespace: str = "") -> int:
        """Length of the longest cached prefix, without touching anything."""
        root = self._roots.get(namespace)
        return 0 if root is None else sum(shared for _, shared in self._walk(root, tokens))

    # -- change -----------------------------------------------------------------------------------------------------

    def insert(self, tokens: Tokens, pages: Pages, namespace: str = "", priority: int = 0) -> Match:
        """Own ``pages`` as the cache of ``tokens`` (whole pages of both).

        Returns the node that ends the sequence and the tree's pages for it. Where they differ from ``pages`` the tree
        already had that part: the caller keeps owning its duplicates and must release them. New parts belong to the
        tree.
        """
        if len(tokens) != len(pages) * self.page_size:
            raise ValueError(f"{len(tokens)} tokens do not fill {len(pages)} pages of {self.page_size}")
        match = self._on_device(self._longest(tokens, namespace, uses=0), pages)
        self._raise_priority(match.node, priority)
        have = len(match.pages)
        if have == len(pages):
            return match
        if match.node.parent is None:
            self._roots[namespace] = match.node
        node = Node(
            match.node, tokens[have * self.page_size :].copy(), pages[have:].copy(), self._clock, priority=priority
        )
        match.node.children[self._child_key(node.key)] = node
        match.node.children_on_device += 1
        self._nodes += 1
        self.cached_pages += len(node.pages)
        self.evictable_pages += len(node.pages)
        self._offer(node)
        if self.log is not None:
            self.log.stored(int(match.pages[-1]) if have else None, node.key, node.pages, namespace)
        return Match(node, np.concatenate((match.pages, node.pages)))

    def lock(self, node: Node) -> None:
        """Keep ``node`` and its ancestors from eviction. Balanced by :meth:`unlock`."""
        for each in self._path(node):
            if each.locks == 0:
                self.evictable_pages -= len(each.pages)
            each.locks += 1

    def unlock(self, node: Node) -> None:
        for each in self._path(node):
            if each.locks == 0:
                raise ValueError("unlock without a lock")
            each.locks -= 1
            if each.locks == 0:
                self.evictable_pages += len(each.pages)
                self._offer(each)

    def evict(self, count: int) -> Pages:
        """Drop unlocked leaves in the order of the policy until ``count`` pages are free, or none is left.

        Returns the pages.
        """
        freed: list[Pages] = []
        missing = count
        while missing > 0 and (node := self._leaves.pop()) is not None:
            pages = self._let_go(node)
            freed.append(pages)
            missing -= len(pages)
        return np.concatenate(freed) if freed else NO_PAGES

    def reset(self) -> Pages:
        """Forget everything that is not locked; returns the pages."""
        nodes = [node for root in self._roots.values() for node in descendants(root)]
        freed = [self._remove(node) for node in reversed(nodes) if node.locks == 0]  # children before their parents
        if self.log is not None and not self._nodes:
            self.log.cleared()
        return np.concatenate(freed) if freed else NO_PAGES

    def all_pages(self) -> Pages:
        """Every page the tree owns, for invariant checks."""
        pages = [node.pages for node in self.nodes()]
        return np.concatenate(pages) if pages else NO_PAGES

    def nodes(self) -> Iterator[Node]:
        """Every node but the roots, parents before their children, for invariant checks."""
        for root in self._roots.values():
            yield from descendants(root)

    # -- what a second tier does otherwise ----------------------------------------------------------------------------

    def _on_device(self, match: Match, pages: Pages) -> Match:
        """All that matched, on the device: ``pages`` hold the same and may become the tree's."""
        return match

    def _let_go(self, node: Node) -> Pages:
        """Free the pages of ``node``, which was chosen for eviction."""
        return self._remove(node)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _longest(self, tokens: Tokens, namespace: str, uses: int) -> Match:
        self._clock += 1
        node = self._root(namespace)
        pages: list[Pages] = []
        for child, shared in self._walk(node, tokens):
            node = child if shared == len(child.key) else self._split(child, shared)
            self._touch(node, uses)
            pages.append(node.pages)
        return Match(node, np.concatenate(pages) if pages else NO_PAGES)

    def _root(self, namespace: str) -> Node:
        """The root of ``namespace``. One that has no children yet is not kept: only :meth:`insert` attaches it."""
        root = self._roots.get(namespace)
        return Node(None, NO_PAGES, NO_PAGES, 0) if root is None else root

    def _child_key(self, tokens: Tokens) -> bytes:
        return tokens[: self.page_size].tobytes()

    def _walk(self, node: Node, tokens: Tokens) -> Iterator[tuple[Node, int]]:
        """The edges along ``tokens`` with how many tokens of each are shared (whole pages, at least one)."""
        done = 0
        while len(tokens) - done >= self.page_size:
            child = node.children.get(self._child_key(tokens[done:]))
            if child is None:
                return
            shared = common_prefix(child.key, tokens[done:]) // self.page_size * self.page_size
            whole = shared == len(child.key)  # asked before the caller may split the edge
            yield child, shared
            if not whole:
                return
            done += shared
            node = child

    def _split(self, node: Node, at: int) -> Node:
        """Cut ``node`` after ``at`` tokens; returns the new upper part, which keeps the locks of the lower one."""
        pages = at // self.page_size
        parent = node.parent
        if parent is None:
            raise ValueError("a root cannot be split")
        upper = Node(parent, node.key[:at], node.pages[:pages], node.last_used, node.hits, node.priority)
        upper.locks = node.locks
        upper.children_on_device = 1 if len(node.pages) else 0
        parent.children[self._child_key(upper.key)] = upper
        node.parent, node.key, node.pages = upper, node.key[at:], node.pages[pages:]
        upper.children[self._child_key(node.key)] = node
        self._nodes += 1
        return upper

    def _touch(self, node: Node, uses: int) -> None:
        node.last_used = self._clock
        node.hits += uses
        self._offer(node)

    def _raise_priority(self, node: Node, priority: int) -> None:
        for each in self._path(node):
            if each.priority < priority:
                each.priority = priority
                self._offer(each)

    def _offer(self, node: Node) -> None:
        """``node`` may have become evictable, or its rank has changed."""
        self._leaves.offer(node, self._nodes)

    def _remove(self, node: Node) -> Pages:
        """Take ``node``, which has no children, out of the tree; returns its pages."""
        parent = node.parent
        if parent is None:
            raise ValueError("a root cannot be removed")
        del parent.children[self._child_key(node.key)]
        node.parent = None
        self._nodes -= 1
        if len(node.pages):
            parent.children_on_device -= 1
            self.cached_pages -= len(node.pages)
            self.evictable_pages -= len(node.pages)
            if self.log is not None:
                self.log.removed(node.pages)
        if parent.parent is not None:
            self._offer(parent)
        elif not parent.children:
            self._roots = {name: root for name, root in self._roots.items() if root is not parent}
        return node.pages

    def _path(self, node: Node) -> Iterator[Node]:
        while node.parent is not None:
            yield node
            node = node.parent


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many leading tokens of ``a`` and ``b`` are equal."""
    length = min(len(a), len(b))
    differ = a[:length] != b[:length]
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length


def _is_evictable(node: Node) -> bool:
    return not node.children_on_device and node.locks == 0 and node.parent is not None and len(node.pages) > 0


def descendants(root: Node) -> Iterator[Node]:
    """Everything below ``root``, parents before their children."""
    stack = list(root.children.values())
    while stack:
        node = stack.pop()
        stack.extend(node.children.values())
        yield node
