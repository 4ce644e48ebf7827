"""The text tree, slow and obvious: the oracle of its property tests.

The whole state is one ordered list of prompts per worker. Everything else follows from comparing strings.
"""

from __future__ import annotations

from itertools import pairwise

from policies.prefix.text_tree import END_BYTES, NODE_BYTES

Prompt = tuple[str, bytes]  # namespace, text


def common_length(left: bytes, right: bytes) -> int:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


def prefixes_that_matter(texts: set[bytes]) -> set[bytes]:
    """Where prompts end or part: the nodes of the compressed trie of ``texts``, root included."""
    ordered = sorted(texts)
    return {b""} | texts | {left[: common_length(left, right)] for left, right in pairwise(ordered)}


def unique_bytes(texts: set[bytes]) -> int:
    """The bytes left when shared prefixes are counted once."""
    ordered = [b"", *sorted(texts)]
    return sum(len(right) - common_length(left, right) for left, right in pairwise(ordered))


class ReferenceTree:
    """Same methods and same results as :class:`policies.prefix.text_tree.TextTree`."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.prompts: dict[str, dict[Prompt, float]] = {}  # worker -> prompts, oldest first, with their time

    def texts(self, namespace: str, worker: str | None = None) -> set[bytes]:
        workers = self.prompts if worker is None else [worker]
        return {text for name in workers for space, text in self.prompts.get(name, {}) if space == namespace}

    def namespaces(self) -> set[str]:
        return {space for prompts in self.prompts.values() for space, _ in prompts}

    @property
    def nodes(self) -> int:
        return sum(len(prefixes_that_matter(self.texts(space))) for space in self.namespaces())

    @property
    def used_bytes(self) -> int:
        text = sum(len(space) + unique_bytes(self.texts(space)) for space in self.namespaces())
        return text + NODE_BYTES * self.nodes + END_BYTES * sum(map(len, self.prompts.values()))

    def held(self, worker: str) -> int:
        return sum(unique_bytes(self.texts(space, worker)) for space in self.namespaces())

    def match(self, text: bytes, namespace: str = "") -> dict[str, int]:
        lengths = {
            worker: max((common_length(text, other) for other in self.texts(namespace, worker)), default=0)
            for worker in self.prompts
        }
        return {worker: length for worker, length in lengths.items() if length}

    def insert(self, text: bytes, worker: str, namespace: str = "", now: float = 0.0) -> None:
        text = text[: max(1, self.budget_bytes // 4)]
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
        return self.prompts.get(worker, {}).get((namespace, text[: max(1, self.budget_bytes // 4)]))

    def trim(self, text: bytes, worker: str, length: int, namespace: str = "", *, before: float) -> int:
        text = text[: max(1, self.budget_bytes // 4)]
        if (namespace, text) not in self.prompts.get(worker, {}):
            return 0
        prompts = self.prompts[worker]
        lost = {
            (space, other)
            for (space, other), stamp in prompts.items()
            if space == namespace
            and stamp < before
            and common_length(text, other) > length
            and not text.startswith(other)
        }
        self.prompts[worker] = {prompt: stamp for prompt, stamp in prompts.items() if prompt not in lost}
        return len(lost)

    def forget(self, worker: str) -> None:
        self.prompts.pop(worker, None)

    def _evict_leaf(self, worker: str) -> None:
        """Cut the oldest prompt back to the next place where any prompt ends or parts."""
        (namespace, text), stamp = next(iter(self.prompts[worker].items()))
        places = [common_length(text, other) for other in self.texts(namespace)]
        cut = text[: max((place for place in places if place < len(text)), default=0)]
        rest = {prompt: age for prompt, age in self.prompts[worker].items() if prompt != (namespace, text)}
        covered = any(space == namespace and other.startswith(cut) for space, other in rest)
        self.prompts[worker] = rest if not cut or covered else {(namespace, cut): stamp} | rest
