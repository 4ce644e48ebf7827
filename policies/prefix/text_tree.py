"""Which worker holds which prefix, as far as the router can tell from the prompts it sent.

A radix tree over blocks of UTF-8 bytes, one per namespace, all under one byte budget. A prompt is stored once however
many workers hold it. The tree is canonical: every node either branches or is the end of some holder's prompt, so its
shape does not depend on the order of inserts. Eviction happens at insert: the oldest leaf of the holder with the most
text goes first.

Prompts are compared in whole blocks, and the rest of a prompt is left out: engines cache whole pages, which are longer,
and prompts that part within a block need no node of their own for the few bytes that they share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from policies.prefix.ends import NO_LIMIT, Holder, Link, take_place, unlink
from policies.prefix.fullest import Fullest
from policies.prefix.node import Extra, Node, Root, collapse, common_length, more_of, split

BLOCK = 16  # bytes
NODE_BYTES = 152  # measured on CPython 3.11: the object, the header of its text, its place among its parent's kids
FORK_BYTES = 250  # measured: what a node with kids has more
EXTRA_BYTES = 70  # measured: an end beside the first one at a node
STAMP_S = 0.02  # time stamps are rounded down to it: they are objects, which many ends then share
LONG = 4096  # bytes from which on a new prompt is not copied for the sake of what is behind its last block
MANY = 3  # a prefix with so many continuations is a common head

NOBODY = Holder(0)


@dataclass(slots=True)
class Found:
    """What was in the tree already of an inserted text, in leading bytes."""

    held: int  # by its worker
    known: int  # by anybody
    continues: float | None  # when its worker was sent the prompt that this one continues


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
    """Approximate prefix index over all namespaces, never above ``budget_bytes`` after an insert.

    ``block``: the bytes that prompts are compared in.
    """

    def __init__(self, budget_bytes: int, block: int = BLOCK) -> None:
        if budget_bytes <= 0:
            raise ValueError(f"the prefix tree needs a budget above 0 bytes, got {budget_bytes}")
        if block <= 0:
            raise ValueError(f"a block of the prefix tree must have at least 1 byte, got {block}")
        self.budget_bytes = budget_bytes
        self.block = block
        self._longest = max(1, budget_bytes // 4)  # one giant prompt must not push out everybody else's
        self._roots: dict[str, Root] = {}
        self._holders: dict[str, Holder] = {}
        self._limits: dict[str, int] = {}
        self._workers: dict[int, str] = {}  # bit of a holder -> worker
        self._fullest = Fullest()
        self._came = 0  # holders so far
        self.holder_changes = 0  # how often one came or went
        self._stamp = 0.0
        self._shape = 0  # grows with each node that comes, goes or moves
        self._walked: tuple[bytes, str, int, list[Node], bool] = b"", "", -1, [], False
        self._text_bytes = 0
        self._nodes = 0
        self._forks = 0
        self._extras = 0

    @property
    def used_bytes(self) -> int:
        """Memory in use: text and structure."""
        structure = NODE_BYTES * self._nodes + FORK_BYTES * self._forks + EXTRA_BYTES * self._extras
        return self._text_bytes + structure

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
        block = self.block
        position, end = 0, len(text) - block
        path: list[tuple[int, int]] = []
        nodes: list[Node] = []
        shared = 0
        new = False  # there is no child for what follows
        while node is not None and position <= end:
            node = node.kid(text[position : position + block])
            if node is None:
                new = True
                break
            if len(node.text) % block:
                self._cut_edge(node)
            if text.startswith(node.text, position):
                position += len(node.text)
                path.append((node.mask, position))
                nodes.append(node)
                if node.more is not None and node.more.count >= MANY:
                    shared = position
            else:
                path.append((node.mask, position + self._common(node.text, text, position)))
                break
        path.reverse()
        self._walked = text, namespace, self._shape, nodes, new
        return PrefixMatch(path, shared, self._workers)

    def insert(self, text: bytes, worker: str, namespace: str = "", now: float = 0.0) -> Found:
        """``worker`` holds ``text`` from ``now`` on. Returns what was there before."""
        nodes, new = self._known_nodes(text, namespace)
        known_nodes = iter(nodes)
        end = self._kept_bytes(text)
        if not end:
            return Found(0, 0, None)
        if not new:  # else nothing of it is looked for, and a long text is not copied
            text = text[:end]
        holder = self._holder(worker)
        bit = holder.bit
        node: Node = self._root(namespace)
        position = 0
        held, known = 0, end
        passed = []
        while True:
            child = next(known_nodes, None)
            if child is None and (new or (child := self._next(node, text, position)) is None):
                known = position
                as_it_came = not position and LONG <= end > len(text) - self.block
                child = self._add_leaf(node, text if as_it_came else text[position:end])
            position += self._size(child)
            if child.mask & bit:
                held = position
            else:
                self._take(holder, child)
            if position == end:
                break
            if child.owner is not None and child.end_of(holder) is not None:
                passed.append(child)
            node = child
        self._mark(holder, child, self._rounded(now))
        stamp = None
        for node in passed:
            stamp = self._unmark(holder, node)
            self._tidy(node)
        self._fullest.grown(holder)
        if holder.size > holder.limit or self.used_bytes > self.budget_bytes:
            self._shrink(holder)
        return Found(held, known, stamp)

    def touched(self, text: bytes, worker: str, namespace: str = "") -> float | None:
        """When ``text`` was last inserted for ``worker``; None when it was evicted or a longer prompt followed."""
        holder = self._holders.get(worker)
        path = self._path(self._cut(text), namespace)
        end = path[-1][0].end_of(holder) if holder is not None and path else None
        return None if end is None else end.stamp

    def trim(self, text: bytes, worker: str, length: int, namespace: str = "", *, before: float) -> int:
        """``worker`` turned out to have had only ``length`` bytes of ``text`` when ``text`` came.

        So it has lost all prompts that share more than that with ``text`` and were last inserted before ``before``.
        ``text`` itself stays, since the worker has just computed it; nothing happens unless it is known as a prompt.
        Returns how many prompts were dropped.
        """
        holder = self._holders.get(worker)
        path = self._path(self._cut(text), namespace)
        if holder is None or not path or path[-1][0].end_of(holder) is None:
            return 0
        on_path = {node for node, _ in path}
        branches = [kid for node, depth in path if depth > length for kid in node.kids() if kid not in on_path]
        lost = [node for node, stamp in _ends_below(branches, holder) if stamp < before]
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
        while (link := holder.oldest) is not None:
            self._drop(holder, _node_of(link))
        self._fullest.remove(holder)
        del self._workers[holder.bit]
        self.holder_changes += 1

    def _known_nodes(self, text: bytes, namespace: str) -> tuple[Sequence[Node], bool]:
        """The nodes that the last walk passed, and whether it saw that the rest of the text is new.

        Nothing unless it was the walk of this very text, and the tree has kept its shape.
        """
        walked, space, shape, nodes, new = self._walked
        return (nodes, new) if walked is text and shape == self._shape and space == namespace else ((), False)

    def _next(self, node: Node, text: bytes, position: int) -> Node | None:
        """The child of ``node`` that spells the text from ``position`` on, split off where it has to be."""
        child = node.kid(text[position : position + self.block])
        if child is None:
            return None
        if len(child.text) % self.block:
            self._cut_edge(child)
        if not text.startswith(child.text, position):
            child = self._split(child, self._common(child.text, text, position))
        return child

    def _size(self, node: Node) -> int:
        """The bytes of its edge."""
        size = len(node.text)
        return size - size % self.block

    def _cut_edge(self, node: Node) -> None:
        """``node`` is a long prompt that was kept with what is behind its last block. Few are ever met again."""
        node.text = node.text[: self._size(node)]

    def _cut(self, text: bytes) -> bytes:
        """Its whole blocks, within what one prompt may take."""
        return text[: self._kept_bytes(text)]

    def _kept_bytes(self, text: bytes) -> int:
        length = min(len(text), self._longest)
        return length - length % self.block

    def _common(self, edge: bytes, text: bytes, position: int) -> int:
        """How many bytes are equal in whole blocks."""
        length = common_length(edge, text, position)
        return length - length % self.block

    def _rounded(self, now: float) -> float:
        if not self._stamp <= now < self._stamp + STAMP_S:
            self._stamp = now
        return self._stamp

    def _holder(self, worker: str) -> Holder:
        holder = self._holders.get(worker)
        if holder is None:
            used = sum(self._workers)
            bit = ~used & (used + 1)  # the lowest bit that nobody has
            self._came += 1
            holder = self._holders[worker] = Holder(bit, self._came, self._limits.get(worker, NO_LIMIT))
            self._workers[bit] = worker
            self._fullest.add(holder)
            self.holder_changes += 1
        return holder

    def _root(self, namespace: str) -> Root:
        root = self._roots.get(namespace)
        if root is None:
            self._shape += 1
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
            node = node.kid(text[position : position + self.block])
            if node is None:
                return []
            if len(node.text) % self.block:
                self._cut_edge(node)
            if not text.startswith(node.text, position):
                return []
            position += len(node.text)
            path.append((node, position))
        return path

    def _add_leaf(self, parent: Node, text: bytes) -> Node:
        self._shape += 1
        leaf = Node(text, parent)
        more = more_of(parent)
        self._forks += not more.count
        more.attach(leaf, text[: self.block])
        self._nodes += 1
        self._text_bytes += self._size(leaf)
        return leaf

    def _split(self, node: Node, length: int) -> Node:
        self._shape += 1
        self._nodes += 1
        self._forks += 1
        return split(node, length, self.block)

    def _take(self, holder: Holder, node: Node) -> None:
        """``holder`` holds ``node`` from now on."""
        bit = holder.bit
        node.mask = node.mask | bit if node.mask else bit  # most masks are one bit: those are one object then
        holder.size += self._size(node)
        if node.parent is not None and node.parent.more is not None:
            node.parent.more.add(bit)

    def _mark(self, holder: Holder, node: Node, stamp: float, newest: bool = True) -> None:
        """A prompt of ``holder`` ends at ``node``."""
        link: Link | None
        if node.owner is None:
            node.owner = holder
            link = node
        elif (link := node.end_of(holder)) is not None:
            unlink(link)
        else:
            more = more_of(node)
            if more.ends is None:
                more.ends = {}
            link = more.ends[holder.bit] = Extra(node, holder)
            self._extras += 1
        if newest:
            holder.append(link, stamp)
        else:
            holder.put_first(link, stamp)

    def _unmark(self, holder: Holder, node: Node) -> float:
        """No prompt of ``holder`` ends at ``node`` any more, as one did. Returns its time stamp."""
        link: Link
        if node.owner is not holder:
            link = self._without_extra(node, holder.bit)
            stamp = link.stamp
            unlink(link)
            return stamp
        stamp = node.stamp
        unlink(node)
        node.owner = None
        if node.more is not None and node.more.ends:  # the node itself is always somebody's end before an extra is
            extra = self._without_extra(node, next(iter(node.more.ends)))
            take_place(node, extra)
            node.owner = extra.holder
        return stamp

    def _without_extra(self, node: Node, bit: int) -> Extra:
        more = more_of(node)
        if more.ends is None:
            raise KeyError(bit)
        extra = more.ends.pop(bit)
        self._extras -= 1
        if not more.ends:
            more.ends = None
            node.shed()
        return extra

    def _release(self, holder: Holder, node: Node) -> None:
        """``holder`` lets go of ``node``, none of whose children it holds."""
        parent = node.parent
        if parent is None or parent.more is None:
            return
        holder.size -= self._size(node)
        parent.more.lose(holder.bit)
        node.mask &= ~holder.bit
        if node.mask:
            self._tidy(node)
            return
        self._shape += 1
        parent.more.detach(node, node.text[: self.block])
        self._nodes -= 1
        self._text_bytes -= self._size(node)
        if not parent.more.count:
            self._forks -= 1
            parent.shed()

    def _tidy(self, node: Node) -> None:
        """Restore the canonical shape after ``node`` lost an end or a child."""
        if node.collapsible():
            self._shape += 1
            collapse(node, self.block)
            self._nodes -= 1
            self._forks -= 1
        elif isinstance(node, Root) and not node.fanout:
            self._shape += 1
            self._roots.pop(node.namespace, None)
            self._nodes -= 1
            self._text_bytes -= len(node.namespace)

    def _drop(self, holder: Holder, node: Node) -> None:
        """Remove an end of ``holder`` and all text that only this end made it hold."""
        self._unmark(holder, node)
        while node.parent is not None and node.end_of(holder) is None and not node.held_below(holder.bit):
            parent = node.parent
            self._release(holder, node)
            node = parent
        self._tidy(node)

    def _shrink(self, holder: Holder) -> None:
        while holder.size > holder.limit and holder.several:
            self._evict_leaf(holder)
        while self.used_bytes > self.budget_bytes:
            self._evict_leaf(self._fullest.find())

    def _evict_leaf(self, holder: Holder) -> None:
        """Take the oldest leaf from ``holder``; its parent, if now a leaf, was last used no later and goes next."""
        node = _node_of(holder.next)
        parent = node.parent
        stamp = self._unmark(holder, node)
        self._release(holder, node)
        if parent is None:
            return
        if parent.parent is None or parent.end_of(holder) is not None or parent.held_below(holder.bit):
            self._tidy(parent)
        else:
            self._mark(holder, parent, stamp, newest=False)


def _node_of(link: Link) -> Node:
    if isinstance(link, Node):
        return link
    if isinstance(link, Extra):
        return link.node
    raise TypeError("a holder without ends was asked for one")


def _ends_below(nodes: list[Node], holder: Holder) -> Iterator[tuple[Node, float]]:
    """The nodes of these subtrees at which a prompt of ``holder`` ends, and when it came."""
    stack = [node for node in nodes if node.mask & holder.bit]
    while stack:
        node = stack.pop()
        end = node.end_of(holder)
        if end is not None:
            yield node, end.stamp
        stack.extend(kid for kid in node.kids() if kid.mask & holder.bit)
