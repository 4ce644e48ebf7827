"""The text tree, slow and obvious: the oracle of its property tests.

The whole state is one ordered list of prompts per worker. Everything else follows from comparing strings.
"""

from __future__ import annotations

from itertools import pairwise

from policies.prefix.text_tree import BLOCK, EXTRA_BYTES, FORK_BYTES, NODE_BYTES

Prompt = tuple[str, bytes]  # namespace, text


def common_length(left: bytes, right: bytes, block: int) -> int:
    """Equal leading bytes, in whole blocks."""
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length // block * block


def prefixes_that_matter(texts: set[bytes], block: int) -> set[bytes]:
    """Where prompts end or part: the nodes of the compressed trie of ``texts``, root included."""
    ordered = sorted(texts)
    return {b""} | texts | {left[: common_length(left, right, block)] for left, right in pairwise(ordered)}


def unique_bytes(texts: set[bytes], block: int) -> int:
    """The bytes left when shared prefixes are counted once."""
    ordered = [b"", *sorted(texts)]
    return sum(len(right) - common_length(left, right, block) for left, right in pairwise(ordered))


class ReferenceTree:
    """Same methods and same results as :class:`policies.prefix.text_tree.TextTree`."""

    def __init__(self, budget_bytes: int, block: int = BLOCK) -> None:
        self.budget_bytes = budget_bytes
        self.block = block
        self.prompts: dict[str, dict[Prompt, float]] = {}  # worker -> prompts, oldest first, with their time

    def texts(self, namespace: str, worker: str | None = None) -> set[bytes]:
        workers = self.prompts if worker is None else [worker]
        return {text for name in workers for space, text in self.prompts.get(name, {}) if space == namespace}

    def namespaces(self) -> set[str]:
        return {space for prompts in self.prompts.values() for space, _ in prompts}

    def places(self, space: str) -> set[bytes]:
        return prefixes_that_matter(self.texts(space), self.block)

    @property
    def nodes(self) -> int:
        return sum(len(self.places(space)) for space in self.namespaces())

    @property
    def forks(self) -> int:
        """Places that something follows."""
        return sum(
            any(text != place and text.startswith(place) for text in self.texts(space))
            for space in self.namespaces()
            for place in self.places(space)
        )

    @property
    def extras(self) -> int:
        """Ends that are not the first ones of their text."""
        return sum(map(len, self.prompts.values())) - sum(len(self.texts(space)) for space in self.namespaces())

    @property
    def used_bytes(self) -> int:
        text = sum(len(space) + unique_bytes(self.texts(space), self.block) for space in self.namespaces())
        return text + NODE_BYTES * self.nodes + FORK_BYTES * self.forks + EXTRA_BYTES * self.extras

    def held(self, worker: str) -> int:
        return sum(unique_bytes(self.texts(space, worker), self.block) for space in self.namespaces())

    def cut(self, text: bytes) -> bytes:
        """What is kept of a prompt: whole blocks within a quarter of the budget."""
        return text[: min(len(text), max(1, self.budget_bytes // 4)) // self.block * self.block]

    def common(self, left: bytes, right: bytes) -> int:
        return common_length(left, right, self.block)

    def match(self, text: bytes, namespace: str = "") -> dict[str, int]:
        lengths = {
            worker: max((self.common(text, other) for other in self.texts(namespace, worker)), default=0)
            for worker in self.prompts
        }
        return {worker: length for worker, length in lengths.items() if length}

    def insert(self, text: bytes, worker: str, namespace: str = "", now: float = 0.0) -> None:
        text = self.cut(text)
        if not text:
            return
        kept = {
            (space, other): stamp
            for (space, other), stamp in self.prompts.get(worker, {}).items()
            if space != namespace or not text.startswith(other)
        }
        self.prompts[worker] = kept | {(namespace, text): now}
        while self.used_bytes > self.budget_bytes:
            self._evict_leaf(max(self.prompts, key=self.held))

    def touched(self, text: bytes, worker: str, namespace: str = "") -> float | None:
        return self.prompts.get(worker, {}).get((namespace, self.cut(text)))

    def trim(self, text: bytes, worker: str, length: int, namespace: str = "", *, before: float) -> int:
        text = self.cut(text)
        if (namespace, text) not in self.prompts.get(worker, {}):
            return 0
        prompts = self.prompts[worker]
        lost = {
            (space, other)
            for (space, other), stamp in prompts.items()
            if space == namespace
            and stamp < before
            and self.common(text, other) > length
            and not text.startswith(other)
        }
        self.prompts[worker] = {prompt: stamp for prompt, stamp in prompts.items() if prompt not in lost}
        return len(lost)

    def forget(self, worker: str) -> None:
        self.prompts.pop(worker, None)

    def _evict_leaf(self, worker: str) -> None:
        """Cut the oldest prompt back to the next place where any prompt ends or parts."""
        (namespace, text), stamp = next(iter(self.prompts[worker].items()))
        places = [self.common(text, other) for other in self.texts(namespace)]
        cut = text[: max((place for place in places if place < len(text)), default=0)]
        rest = {prompt: age for prompt, age in self.prompts[worker].items() if prompt != (namespace, text)}
        covered = any(space == namespace and other.startswith(cut) for space, other in rest)
        self.prompts[worker] = rest if not cut or covered else {(namespace, cut): stamp} | rest
