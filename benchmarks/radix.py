"""The radix cache at work: match and insert of a long prompt beside many held ones, and the eviction of one leaf.

python -m benchmarks.radix [--leaves 20000] [--tokens 4096] [--page-size 16]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from backend.cache import RadixCache

KNOWN_EVICTION_MS = 8.1  # mini-sglang, which walks the tree


def median_us(action: Callable[[int], None], count: int) -> float:
    times = []
    for i in range(count):
        started = time.perf_counter()
        action(i)
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def measure(leaves: int, count: int, page: int, repeat: int) -> tuple[float, float, float]:
    """Microseconds: match and insert a prompt of ``count`` tokens, match a held one, evict one leaf."""
    random = np.random.default_rng(0)
    cache = RadixCache(page)
    next_page = iter(range(1, 2**31))

    def pages(tokens: np.ndarray) -> np.ndarray:
        return np.fromiter((next(next_page) for _ in range(len(tokens) // page)), np.int32)

    heads = [random.integers(0, 50_000, 1024).astype(np.int32) for _ in range(64)]
    for i in range(leaves):
        tokens = np.concatenate((heads[i % 64], random.integers(0, 50_000, 4 * page).astype(np.int32)))
        cache.insert(tokens, pages(tokens))
    prompts = [
        np.concatenate((heads[i % 64], random.integers(0, 50_000, count - 1024).astype(np.int32)))
        for i in range(repeat)
    ]
    own = [pages(prompt) for prompt in prompts]

    def match_and_insert(i: int) -> None:
        node = cache.match(prompts[i][:-1]).node
        cache.lock(node)
        cache.insert(prompts[i], own[i])
        cache.unlock(node)

    def match(i: int) -> None:
        cache.match(prompts[i][:-1])

    def evict(i: int) -> None:
        cache.evict(1)

    return median_us(match_and_insert, repeat), median_us(match, repeat), median_us(evict, repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=20_000)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=300)
    args = parser.parse_args()

    inserted, matched, evicted = measure(args.leaves, args.tokens, args.page_size, args.repeat)
    print(f"{args.leaves} leaves held, prompts of {args.tokens} tokens, pages of {args.page_size}")
    print(f"match and insert a new prompt: {inserted:.0f} us; match a held one: {matched:.0f} us")
    print(f"evict one leaf: {evicted:.1f} us (known: {KNOWN_EVICTION_MS * 1000:.0f} us)")


if __name__ == "__main__":
    main()
