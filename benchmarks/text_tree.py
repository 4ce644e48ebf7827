"""Time and memory of the text tree: ``python -m benchmarks.text_tree``.

Holds ``--prompts`` seeded prompts of 2 KiB with shared heads, then matches and inserts prompts of 32 KiB that share a
head with them, once with room to spare and once with the budget used up, so that every insert evicts.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Iterator

from policies.prefix.node import Node
from policies.prefix.text_tree import TextTree

WORKERS = [f"worker-{index}" for index in range(8)]
HEADS, HEAD_BYTES, PROMPT_BYTES, LONG_BYTES = 64, 1450, 2048, 32 * 1024


def text(rng: random.Random, length: int) -> bytes:
    """Words of the size of English, so that siblings differ within their first bytes."""
    words = (bytes(rng.choices(b"etaoinshrdlucmfw", k=rng.randint(1, 9))) for _ in range(length))
    out = bytearray()
    while len(out) < length:
        out += next(words) + b" "
    return bytes(out[:length])


def fill(tree: TextTree, heads: list[bytes], prompts: int, rng: random.Random) -> None:
    for _ in range(prompts):
        tree.insert(rng.choice(heads) + text(rng, PROMPT_BYTES - HEAD_BYTES), rng.choice(WORKERS))


def time_long_prompts(tree: TextTree, heads: list[bytes], rng: random.Random, count: int = 400) -> list[float]:
    """Microseconds of each match + insert."""
    tail = text(rng, LONG_BYTES)
    times = []
    for _ in range(count):
        prompt = rng.choice(heads) + text(rng, 64) + tail[: LONG_BYTES - HEAD_BYTES - 64]
        worker = rng.choice(WORKERS)
        start = time.perf_counter()
        tree.match(prompt)
        tree.insert(prompt, worker)
        times.append((time.perf_counter() - start) * 1e6)
    return times


def objects(tree: TextTree) -> Iterator[int]:
    """The size of every Python object that the tree owns, garbage collector's header included."""
    stack: list[Node] = list(tree._roots.values())
    while stack:
        node = stack.pop()
        stack.extend(node.kids)
        yield sys.getsizeof(node) + sys.getsizeof(node.text)
        if node.kids:
            yield sys.getsizeof(node.firsts) + sys.getsizeof(node.kids)
    for holder in tree._holders.values():
        yield sys.getsizeof(holder.ends) + 24 * len(holder.ends)


def report(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    print(f"{name}: median {statistics.median(times):.1f} us, p99 {ordered[len(ordered) * 99 // 100]:.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    heads = [text(rng, HEAD_BYTES) for _ in range(HEADS)]
    tree = TextTree(1 << 40)
    fill(tree, heads, args.prompts, rng)
    unique = tree.text_bytes
    print(f"{args.prompts} prompts of {PROMPT_BYTES} bytes: {unique / 1e6:.1f} MB unique text, {tree.nodes} nodes")
    print(f"accounted: {tree.used_bytes / unique:.3f} x unique text; objects: {sum(objects(tree)) / unique:.3f} x")
    gc.disable()
    report("match + insert of 32 KiB, room to spare", time_long_prompts(tree, heads, rng))
    tree.budget_bytes = tree.used_bytes
    report("match + insert of 32 KiB, budget full  ", time_long_prompts(tree, heads, rng))


if __name__ == "__main__":
    main()
