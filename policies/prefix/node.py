"""One node of the text tree and the operations that know nothing of budgets."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from policies.prefix.ends import Holder, Link

LONGEST_CHUNK = 4096  # kids in one list: inserting moves half of it
COUNTED = 16  # kids from which on the holders among them are counted

# Kids sorted by the hash of the first block of their edge. Looking for one in an array of hashes touches no other kid:
# among many, what takes time is memory that is in no cache.
Chunk = tuple["array[int]", "list[Node]"]


class Node(Link):
    """The bytes of an incoming edge, and who holds it. ``mask`` has one bit per holder.

    It is itself a place in the list of ``owner``, for whom a prompt ends here. What most nodes do not have (kids, ends
    of other holders) lies in ``more``: with a quarter of a million leaves every slot counts.
    """

    __slots__ = ("mask", "more", "owner", "parent", "text")

    def __init__(self, text: bytes, parent: Node | None, mask: int = 0) -> None:
        self.text = text
        self.parent = parent
        self.mask = mask
        self.owner: Holder | None = None
        self.more: More | None = None

    def kid(self, block: bytes) -> Node | None:
        """The child whose edge starts with ``block``."""
        return self.more.kid(block) if self.more is not None else None

    def kids(self) -> Iterable[Node]:
        return () if self.more is None else self.more

    @property
    def fanout(self) -> int:
        return 0 if self.more is None else self.more.count

    def held_below(self, bit: int) -> bool:
        """Whether the holder of ``bit`` holds any child."""
        return self.more is not None and self.more.held(bit)

    def end_of(self, holder: Holder) -> Link | None:
        """The end of one of ``holder``'s prompts that is here."""
        if self.owner is holder:
            return self
        more = self.more
        return more.ends.get(holder.bit) if more is not None and more.ends is not None else None

    def shed(self) -> None:
        """Give back what nothing lies in any more."""
        if self.more is not None and not self.more.count and not self.more.ends:
            self.more = None

    def collapsible(self) -> bool:
        """Whether this node neither branches nor ends a prompt, so that it can be joined with its only child."""
        return self.parent is not None and self.owner is None and self.fanout == 1


class Extra(Link):
    """The end of another holder's prompt at a node that has an owner."""

    __slots__ = ("holder", "node")

    def __init__(self, node: Node, holder: Holder) -> None:
        self.node = node
        self.holder = holder


class More:
    """Kids; holders counted among many kids; ends beside the owner's."""

    __slots__ = ("chunks", "count", "counts", "ends")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.count = 0
        self.counts: dict[int, int] | None = None  # bit -> how many kids its holder has
        self.ends: dict[int, Extra] | None = None

    def kid(self, block: bytes) -> Node | None:
        if not self.count:
            return None
        name = hash(block)
        chunk = self.chunks[0] if len(self.chunks) == 1 else self._chunk(name)
        names, nodes = chunk
        index = bisect_left(names, name)
        while index < len(names) and names[index] == name:
            if nodes[index].text.startswith(block):
                return nodes[index]
            index += 1  # two blocks of one hash
        return None

    def attach(self, kid: Node, block: bytes) -> None:
        """``kid``'s edge starts with ``block``."""
        name = hash(block)
        self.count += 1
        if not self.chunks:
            self.chunks = [(array("q", (name,)), [kid])]
            return
        names, nodes = chunk = self._chunk(name)
        index = bisect_left(names, name)
        names.insert(index, name)
        nodes.insert(index, kid)
        if len(names) > LONGEST_CHUNK:
            self._halve(chunk)
        if self.counts is None and self.count > COUNTED:
            self.counts = {}
            for each in self:
                self.add(each.mask)

    def detach(self, kid: Node, block: bytes) -> None:
        self.count -= 1
        names, nodes, index = self._place(kid, block)
        del names[index], nodes[index]
        if not nodes:
            self.chunks = [chunk for chunk in self.chunks if chunk[1]]
        kid.parent = None  # breaks the reference cycle, so that memory is freed now and not by the collector

    def replace(self, old: Node, new: Node, block: bytes) -> None:
        """Put ``new`` in the place of ``old``; the edges of both start with ``block``."""
        _, nodes, index = self._place(old, block)
        nodes[index] = new

    def __iter__(self) -> Iterator[Node]:
        for _, nodes in self.chunks:
            yield from nodes

    def held(self, bit: int) -> bool:
        """Whether the holder of ``bit`` has any kid."""
        if self.counts is not None:
            return bit in self.counts
        return any(kid.mask & bit for kid in self)

    def add(self, mask: int) -> None:
        """A kid is held by the holders in ``mask`` from now on."""
        counts = self.counts
        while counts is not None and mask:
            bit = mask & -mask
            counts[bit] = counts.get(bit, 0) + 1
            mask ^= bit

    def lose(self, bit: int) -> None:
        """The holder of ``bit`` holds one kid less."""
        if self.counts is not None:
            left = self.counts[bit] - 1
            if left:
                self.counts[bit] = left
            else:
                del self.counts[bit]

    def _chunk(self, name: int) -> Chunk:
        """Where a kid of this name is, or belongs."""
        if len(self.chunks) == 1:
            return self.chunks[0]
        return self.chunks[max(0, bisect_right(self.chunks, name, key=_least) - 1)]

    def _place(self, kid: Node, block: bytes) -> tuple[array[int], list[Node], int]:
        name = hash(block)
        names, nodes = self._chunk(name)
        index = bisect_left(names, name)
        while nodes[index] is not kid:
            index += 1
        return names, nodes, index

    def _halve(self, chunk: Chunk) -> None:
        names, nodes = chunk
        half = len(names) // 2
        while half and names[half - 1] == names[half]:  # equal names stay together
            half -= 1
        if half:
            index = next(index for index, each in enumerate(self.chunks) if each[1] is nodes)
            self.chunks.insert(index + 1, (names[half:], nodes[half:]))
            del names[half:], nodes[half:]


class Root(Node):
    """The empty prefix of one namespace."""

    __slots__ = ("namespace",)

    def __init__(self, namespace: str) -> None:
        super().__init__(b"", None)
        self.namespace = namespace


def more_of(node: Node) -> More:
    if node.more is None:
        node.more = More()
    return node.more


def split(node: Node, length: int, block: int) -> Node:
    """Cut the edge of ``node`` after ``length`` bytes; return the new upper half. ``node`` becomes the lower half."""
    upper = Node(node.text[:length], node.parent, node.mask)
    if node.parent is not None:
        more_of(node.parent).replace(node, upper, node.text[:block])
    node.text = node.text[length:]
    node.parent = upper
    more_of(upper).attach(node, node.text[:block])
    return upper


def collapse(node: Node, block: int) -> None:
    """Join a :meth:`Node.collapsible` node with its child, undoing a split. The child keeps its identity.

    Both have the same holders: a holder of ``node`` alone would have a prompt that ends there.
    """
    (kid,) = node.kids()
    if node.parent is not None:
        more_of(node.parent).replace(node, kid, node.text[:block])
    kid.text = node.text + kid.text
    kid.parent = node.parent
    node.parent = node.more = None


def common_length(edge: bytes, text: bytes, start: int) -> int:
    """How many bytes of ``edge`` are equal to ``text[start:]``: a binary search over memcmp."""
    low, high = 0, min(len(edge), len(text) - start)
    while low < high:
        middle = (low + high + 1) // 2
        if text.startswith(edge[low:middle], start + low):
            low = middle
        else:
            high = middle - 1
    return low


def _least(chunk: Chunk) -> int:
    return chunk[0][0]
