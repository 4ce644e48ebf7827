"""One node of the text tree and the operations that know nothing of holders or budgets."""

from __future__ import annotations


class Node:
    """A radix node: the bytes of its incoming edge, its children, and who holds it.

    Children lie in a tuple beside a string of their first bytes: `bytes.find` is a memchr, and the pair takes less than
    half the memory of a small dict. ``mask`` has one bit per holder; ``marks`` has the bits of the holders for whom a
    prompt ends here (:class:`policies.prefix.text_tree.TextTree` keeps the order of those ends).
    """

    __slots__ = ("firsts", "kids", "marks", "mask", "parent", "text")

    def __init__(self, text: bytes, parent: Node | None, mask: int = 0) -> None:
        self.text = text
        self.parent = parent
        self.firsts = b""
        self.kids: tuple[Node, ...] = ()
        self.mask = mask
        self.marks = 0

    def kid(self, first: int) -> Node | None:
        """The child whose edge starts with byte ``first``."""
        index = self.firsts.find(first)
        return self.kids[index] if index >= 0 else None

    def held_below(self, bit: int) -> bool:
        """Whether the holder of ``bit`` holds any child."""
        return any(kid.mask & bit for kid in self.kids)

    def collapsible(self) -> bool:
        """Whether this node neither branches nor ends a prompt, so that it can be joined with its only child."""
        return self.parent is not None and not self.marks and len(self.kids) == 1

    def attach(self, kid: Node) -> None:
        self.firsts += kid.text[:1]
        self.kids += (kid,)

    def detach(self, kid: Node) -> None:
        index = self.firsts.index(kid.text[0])
        self.firsts = self.firsts[:index] + self.firsts[index + 1 :]
        self.kids = self.kids[:index] + self.kids[index + 1 :]
        kid.parent = None  # breaks the reference cycle, so that memory is freed now and not by the collector

    def replace(self, old: Node, new: Node) -> None:
        """Put ``new``, whose edge starts with the same byte, in the place of ``old``."""
        index = self.firsts.index(old.text[0])
        self.kids = self.kids[:index] + (new,) + self.kids[index + 1 :]
        new.parent = self


class Root(Node):
    """The empty prefix of one namespace."""

    __slots__ = ("namespace",)

    def __init__(self, namespace: str) -> None:
        super().__init__(b"", None)
        self.namespace = namespace


def split(node: Node, length: int) -> Node:
    """Cut the edge of ``node`` after ``length`` bytes; return the new upper half. ``node`` becomes the lower half."""
    upper = Node(node.text[:length], node.parent, node.mask)
    if node.parent is not None:
        node.parent.replace(node, upper)
    node.text = node.text[length:]
    node.parent = upper
    upper.attach(node)
    return upper


def collapse(node: Node) -> None:
    """Join a :meth:`Node.collapsible` node with its child, undoing a split. The child keeps its identity.

    Both have the same holders: a holder of ``node`` alone would have a prompt that ends there.
    """
    (kid,) = node.kids
    if node.parent is not None:
        node.parent.replace(node, kid)
    kid.text = node.text + kid.text
    node.parent, node.kids, node.firsts = None, (), b""


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
