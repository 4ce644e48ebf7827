"""Highest random weight hashing: replicas that never talk agree where a prefix is at home.

Each worker gets a number made of its name and the key; the highest wins. When a worker leaves, only its own keys move.
Reference: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996.
"""

from __future__ import annotations

from collections.abc import Iterable

from xxhash import xxh3_64_intdigest

HEAD_BYTES = 4096  # about a thousand tokens: beyond the heads that all requests share, within a system prompt


def head_key(namespace: str, text: bytes) -> int:
    """The key of a prompt: its first blocks, in its model and namespace."""
    return xxh3_64_intdigest(text[:HEAD_BYTES], xxh3_64_intdigest(namespace.encode()))


def weight(key: int, worker: str) -> int:
    """What ``worker`` weighs for ``key``."""
    return xxh3_64_intdigest(worker.encode(), key)


def home(key: int, workers: Iterable[str]) -> str:
    """The worker, of at least one, at which ``key`` is at home."""
    return max(workers, key=lambda worker: weight(key, worker))
