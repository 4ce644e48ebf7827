"""Time and memory of the text tree: ``python -m benchmarks.text_tree``.

Holds ``--prompts`` seeded prompts of 2 KiB with shared heads, a hundredth of a second apart, then matches and inserts
prompts of 32 KiB that share a head with them: with room to spare, and with the budget used up. There each one first
pushes out some fifty short prompts, and 2 KiB prompts one or two. Before that, ``--large`` distinct prompts of
32 KiB go into a tree with the default budget: how far beyond the budget does the process grow?
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import statistics
import time
import tracemalloc

from policies import DEFAULT_PREFIX_BYTES
from policies.prefix.text_tree import TextTree

WORKERS = [f"worker-{index}" for index in range(8)]
HEADS, HEAD_BYTES, PROMPT_BYTES, LONG_BYTES = 64, 1450, 2048, 32 * 1024
STEP_S = 0.01


def text(rng: random.Random, length: int) -> bytes:
    """Words of the size of English, so that siblings differ within their first bytes."""
    words = (bytes(rng.choices(b"etaoinshrdlucmfw", k=rng.randint(1, 9))) for _ in range(length))
    out = bytearray()
    while len(out) < length:
        out += next(words) + b" "
    return bytes(out[:length])


def fill(tree: TextTree, heads: list[bytes], prompts: int, rng: random.Random) -> None:
    for index in range(prompts):
        prompt = rng.choice(heads) + text(rng, PROMPT_BYTES - HEAD_BYTES)
        tree.insert(prompt, rng.choice(WORKERS), now=index * STEP_S)


def time_prompts(tree: TextTree, heads: list[bytes], rng: random.Random, length: int, count: int = 400) -> list[float]:
    """Microseconds of each match + insert of prompts of ``length`` bytes."""
    tail = text(rng, length)
    times = []
    for index in range(count):
        prompt = rng.choice(heads) + text(rng, 64) + tail[: length - HEAD_BYTES - 64]
        worker = rng.choice(WORKERS)
        start = time.perf_counter()
        tree.match(prompt)
        tree.insert(prompt, worker, now=1e6 + index * STEP_S)
        times.append((time.perf_counter() - start) * 1e6)
    return times


def resident_bytes() -> int:
    """What the process has in memory now."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def grow(count: int) -> None:
    """Insert ``count`` distinct long prompts and print the most memory in use at any moment."""
    before, most = resident_bytes(), 0
    tree, rng = TextTree(DEFAULT_PREFIX_BYTES), random.Random(1)
    for index in range(count):
        tree.insert(rng.randbytes(LONG_BYTES), rng.choice(WORKERS), now=index * STEP_S)
        if index % 10 == 0:
            most = max(most, resident_bytes() - before)
    print(
        f"{count} distinct prompts of {LONG_BYTES} bytes, budget {DEFAULT_PREFIX_BYTES >> 20} MiB: "
        f"accounted {tree.used_bytes >> 20} MiB, process at most {most >> 20} MiB larger"
    )


def report(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    print(f"{name}: median {statistics.median(times):.1f} us, p99 {ordered[len(ordered) * 99 // 100]:.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    grow(args.large)
    rng = random.Random(args.seed)
    heads = [text(rng, HEAD_BYTES) for _ in range(HEADS)]
    tree = TextTree(1 << 40)
    tracemalloc.start()
    fill(tree, heads, args.prompts, rng)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    unique = tree.text_bytes
    print(f"{args.prompts} prompts of {PROMPT_BYTES} bytes: {unique / 1e6:.1f} MB unique text, {tree.nodes} nodes")
    print(f"accounted: {tree.used_bytes / unique:.3f} x unique text; allocated: {allocated / unique:.3f} x")
    gc.disable()
    report("match + insert of 32 KiB, room to spare", time_prompts(tree, heads, rng, LONG_BYTES))
    report("match + insert of  2 KiB, room to spare", time_prompts(tree, heads, rng, PROMPT_BYTES))
    tree.budget_bytes = tree.used_bytes
    report("match + insert of 32 KiB, budget full  ", time_prompts(tree, heads, rng, LONG_BYTES))
    report("match + insert of  2 KiB, budget full  ", time_prompts(tree, heads, rng, PROMPT_BYTES))


if __name__ == "__main__":
    main()
