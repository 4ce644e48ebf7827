"""Which worker holds which prefix, as far as the router can tell from the prompts it sent.

A radix tree over UTF-8 bytes, one per namespace, all under one byte budget. A prompt is stored once however many
workers hold it. The tree is canonical: every node either branches or is the end of some holder's prompt, so its shape
does not depend on the order of inserts. Eviction happens at insert: the oldest leaf of the holder with the most text
goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from policies.prefix.node import Node, Root, collapse, common_length, split

NODE_BYTES = 170  # measured on CPython 3.11: the object, its bytes header, its share of the parent's child tables
MANY = 3  # a prefix with so many continuations is a common head
NO_LIMIT = 2**63
END_BYTES = 110  # measured: an OrderedDict entry and its time stamp

_size = attrgetter("size")


class Holder:
    """One worker: its bit in the masks, the text it holds, and the ends of its prompts, oldest first.

    The oldest end is always a leaf of this holder: an insert drops the ends that it passes, so an end above another one
    is the younger of the two.
    """

    __slots__ = ("bit", "ends", "limit", "size")

    def __init__(self, bit: int, limit: int = NO_LIMIT) -> None:
        self.bit = bit
        self.size = 0
        self.limit = limit
        self.ends: OrderedDict[Node, float] = OrderedDict()  # node -> when a prompt last ended there

    def pushed_out(self, text_bytes: int) -> tuple[int, float]:
        """How many bytes it would lose to ``text_bytes`` new ones, and when the first victim was last used."""
        if not self.ends:
            return 0, 0.0
        return max(0, self.size + text_bytes - self.limit), next(iter(self.ends.values()))


NOBODY = Holder(0)


class Found(NamedTuple):
    """What was in the tree already of an inserted text, in leading bytes."""

    held: int  # by its worker
    known: int  # by anybody
    continues: float | None = None  # when its worker was sent the prompt that this one continues


class PrefixMatch:
    """What workers hold of one text; valid until the tree changes."""

    __slots__ = ("_path", "_workers", "longest", "shared")

    def __init__(self, path: list[tuple[int, int]], shared: int, workers: dict[int, str]) -> None:
        self.shared = shared  # the last place where many prompts part
        self._path = path  # (mask, matched bytes), deepest first: masks grow along it
        self._workers = workers
        self.longest = path[0][1] if path else 0

    def all(self, limit: int | None = None) -> dict[str, int]:
        """Matched bytes by worker, the longest first; at most ``limit`` workers."""
        lengths: dict[str, int] = {}
        seen = 0
        for mask, length in self._path:
            new = mask & ~seen
            seen |= mask
            while new:
                if limit is not None and len(lengths) >= limit:
                    return lengths
                bit = new & -new
                lengths[self._workers[bit]] = length
                new ^= bit
        return lengths

    def steps(self) -> list[tuple[int, int]]:
        """Who holds how much: (mask, matched bytes), the longest first, a holder's own being the first with its bit."""
        steps: list[tuple[int, int]] = []
        seen = -1
        for mask, length in self._path:
            if mask != seen:
                steps.append((mask, length))
                seen = mask
        return steps


class TextTree:
    """Approximate prefix index over all namespaces, never above ``budget_bytes`` after an insert."""

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes <= 0:
            raise ValueError(f"the prefix tree needs a budget above 0 bytes, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self._longest = max(1, budget_bytes // 4)  # one giant prompt must not push out everybody else's
        self._roots: dict[str, Root] = {}
        self._holders: dict[str, Holder] = {}
        self._limits: dict[str, int] = {}
        self._workers: dict[int, str] = {}  # bit of a holder -> worker
        self.holder_changes = 0  # how often one came or went
        self._text_bytes = 0
        self._nodes = 0
        self._ends = 0

    @property
    def used_bytes(self) -> int:
        """Memory in use: text and structure."""
        return self._text_bytes + NODE_BYTES * self._nodes + END_BYTES * self._ends

    @property
    def text_bytes(self) -> int:
        """Unique text in use."""
        return self._text_bytes

    @property
    def nodes(self) -> int:
        return self._nodes

    def held(self, worker: str) -> int:
        """Bytes of text that ``worker`` holds, shared or not."""
        holder = self._holders.get(worker)
        return holder.size if holder else 0

    def limit(self, worker: str, text_bytes: int) -> None:
        """``worker`` cannot hold more than ``text_bytes`` of text; from its next insert on it will not."""
        self._limits[worker] = text_bytes
        if worker in self._holders:
            self._holders[worker].limit = text_bytes

    def holders(self, workers: Sequence[str]) -> list[Holder]:
        """Of each worker; good until :attr:`holder_changes` changes."""
        return [self._holders.get(worker, NOBODY) for worker in workers]

    def match(self, text: bytes, namespace: str = "") -> dict[str, int]:
        """How many leading bytes of ``text`` each worker holds; workers that hold none are left out."""
        return self.walk(text, namespace).all()

    def walk(self, text: bytes, namespace: str = "") -> PrefixMatch:
        """The same, to be asked for some workers only: large fleets hold common heads on every worker."""
        node: Node | None = self._roots.get(namespace)
        position, end = 0, len(text)
        path: list[tuple[int, int]] = []
        shared = 0
        while node is not None and position < end:
            node = node.kid(text[position])
            if node is None:
                break
            if text.startswith(node.text, position):
                position += len(node.text)
                path.append((node.mask, position))
                if len(node.kids) >= MANY:
                    shared = position
            else:
                path.append((node.mask, position + common_length(node.text, text, position)))
                break
        path.reverse()
        return PrefixMatch(path, shared, self._workers)

    def insert(self, text: bytes, worker: str, namespace: str = "", now: float = 0.0) -> Found:
        """``worker`` holds ``text`` from ``now`` on. Returns what was there before."""
        text = text[: self._longest]
        if not text:
            return Found(0, 0)
        holder = self._holder(worker)
        bit = holder.bit
        node: Node = self._root(namespace)
        position, end = 0, len(text)
        held, known = 0, end
        passed = []
        while True:
            child = node.kid(text[position])
            if child is None:
                known = position
                child = self._add_leaf(node, text[position:])
            elif not text.startswith(child.text, position):
                child = split(child, common_length(child.text, text, position))
                self._nodes += 1
            position += len(child.text)
            if not child.mask & bit:
                child.mask |= bit
                holder.size += len(child.text)
            else:
                held = position
            if position == end:
                break
            if child.marks & bit:
                passed.append(child)
            node = child
        self._mark(holder, child, now)
        stamp = None
        for node in passed:
            stamp = self._unmark(holder, node)
            self._tidy(node)
        self._shrink(holder)
        return Found(held, known, stamp)

    def touched(self, text: bytes, worker: str, namespace: str = "") -> float | None:
        """When ``text`` was last inserted for ``worker``; None when it was evicted or a longer prompt followed."""
        holder = self._holders.get(worker)
        path = self._path(text[: self._longest], namespace)
        return holder.ends.get(path[-1][0]) if holder and path else None

    def trim(self, text: bytes, worker: str, length: int, namespace: str = "", *, before: float) -> int:
        """``worker`` turned out to have had only ``length`` bytes of ``text`` when ``text`` came.

        So it has lost all prompts that share more than that with ``text`` and were last inserted before ``before``.
        ``text`` itself stays, since the worker has just computed it; nothing happens unless it is known as a prompt.
        Returns how many prompts were dropped.
        """
        holder = self._holders.get(worker)
        path = self._path(text[: self._longest], namespace)
        if holder is None or not path or path[-1][0] not in holder.ends:
            return 0
        on_path = {node for node, _ in path}
        branches = [kid for node, depth in path if depth > length for kid in node.kids if kid not in on_path]
        lost = [node for node in _ends_below(branches, holder.bit) if holder.ends[node] < before]
        for node in lost:
            self._drop(holder, node)
        return len(lost)

    def forget(self, worker: str) -> None:
        """``worker`` is gone."""
        self._limits.pop(worker, None)
        self.clear(worker)

    def clear(self, worker: str) -> None:
        """``worker`` is there, but has lost its cache."""
        holder = self._holders.pop(worker, None)
        if holder is None:
            return
        while holder.ends:
            self._drop(holder, next(iter(holder.ends)))
        del self._workers[holder.bit]
        self.holder_changes += 1

    def _holder(self, worker: str) -> Holder:
        holder = self._holders.get(worker)
        if holder is None:
            used = sum(self._workers)
            holder = self._holders[worker] = Holder(
                ~used & (used + 1),  # the lowest bit that nobody has
                self._limits.get(worker, NO_LIMIT),
            )
            self._workers[holder.bit] = worker
            self.holder_changes += 1
        return holder

    def _root(self, namespace: str) -> Root:
        root = self._roots.get(namespace)
        if root is None:
            root = self._roots[namespace] = Root(namespace)
            self._nodes += 1
            self._text_bytes += len(namespace)
        return root

    def _path(self, text: bytes, namespace: str) -> list[tuple[Node, int]]:
        """The nodes that spell ``text``, each with its depth in bytes; empty when none ends exactly there."""
        node: Node | None = self._roots.get(namespace)
        position = 0
        path: list[tuple[Node, int]] = []
        while node is not None and position < len(text):
            node = node.kid(text[position])
            if node is None or not text.startswith(node.text, position):
                return []
            position += len(node.text)
            path.append((node, position))
        return path

    def _add_leaf(self, parent: Node, text: bytes) -> Node:
        leaf = Node(text, parent)
        parent.attach(leaf)
        self._nodes += 1
        self._text_bytes += len(text)
        return leaf

    def _mark(self, holder: Holder, node: Node, now: float, newest: bool = True) -> None:
        if not node.marks & holder.bit:
            node.marks |= holder.bit
            self._ends += 1
        holder.ends[node] = now
        holder.ends.move_to_end(node, last=newest)

    def _unmark(self, holder: Holder, node: Node) -> float:
        node.marks &= ~holder.bit
        self._ends -= 1
        return holder.ends.pop(node)

    def _release(self, holder: Holder, node: Node) -> None:
        """``holder`` lets go of ``node``, none of whose children it holds."""
        node.mask &= ~holder.bit
        holder.size -= len(node.text)
        if node.mask:
            self._tidy(node)
        elif node.parent is not None:
            node.parent.detach(node)
            self._nodes -= 1
            self._text_bytes -= len(node.text)

    def _tidy(self, node: Node) -> None:
        """Restore the canonical shape after ``node`` lost an end or a child."""
        if node.collapsible():
            collapse(node)
            self._nodes -= 1
        elif isinstance(node, Root) and not node.kids:
            del self._roots[node.namespace]
            self._nodes -= 1
            self._text_bytes -= len(node.namespace)

    def _drop(self, holder: Holder, node: Node) -> None:
        """Remove an end of ``holder`` and all text that only this end made it hold."""
        self._unmark(holder, node)
        while node.parent is not None and not node.marks & holder.bit and not node.held_below(holder.bit):
            parent = node.parent
            self._release(holder, node)
            node = parent
        self._tidy(node)

    def _shrink(self, holder: Holder) -> None:
        while holder.size > holder.limit and len(holder.ends) > 1:
            self._evict_leaf(holder)
        while self.used_bytes > self.budget_bytes:
            self._evict_leaf(max(self._holders.values(), key=_size))

    def _evict_leaf(self, holder: Holder) -> None:
        """Take the oldest leaf from ``holder``; its parent, if now a leaf, was last used no later and goes next."""
        node = next(iter(holder.ends))
        parent = node.parent
        stamp = self._unmark(holder, node)
        self._release(holder, node)
        if parent is None:
            return
        if parent.parent is None or parent.marks & holder.bit or parent.held_below(holder.bit):
            self._tidy(parent)
        else:
            self._mark(holder, parent, stamp, newest=False)


def _ends_below(nodes: list[Node], bit: int) -> Iterator[Node]:
    """The nodes of these subtrees at which a prompt of the holder of ``bit`` ends."""
    stack = [node for node in nodes if node.mask & bit]
    while stack:
        node = stack.pop()
        if node.marks & bit:
            yield node
        stack.extend(kid for kid in node.kids if kid.mask & bit)
