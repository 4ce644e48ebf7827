"""Where a prompt is at home: replicas of the router that never talk agree on it.

Each worker gets a number made of its name and a key; the highest wins, and when a worker leaves, only its own keys move
(Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996). The key is the first stretch of text after
the heads that many prompts share, so a conversation keeps its home, and conversations under one system prompt have
different ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from xxhash import xxh3_64_intdigest

GRAIN = 256  # bytes that the shared head is rounded down to: replicas need not have seen the same siblings
STRETCH = 512  # bytes hashed


def home_key(namespace: str, text: bytes, shared: int) -> int:
    """The key of a prompt whose first ``shared`` bytes are common to many."""
    start = shared - shared % GRAIN
    return xxh3_64_intdigest(text[start : start + STRETCH], xxh3_64_intdigest(namespace.encode()))


def weight(key: int, worker: str) -> int:
    """What ``worker`` weighs for ``key``."""
    return xxh3_64_intdigest(worker.encode(), key)


def home(key: int, workers: Iterable[str]) -> str:
    """The worker, of at least one, at which ``key`` is at home."""
    return max(workers, key=lambda worker: weight(key, worker))
