"""Random numbers that depend on a request's seed and the token's position alone, not on the batch around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MASK = (1 << 64) - 1


def hash_seed(seed: int) -> int:
    """64 well-mixed bits of ``seed``, for :func:`uniform`."""
    with np.errstate(over="ignore"):
        return int(_mix(np.array([seed & MASK], np.uint64) + GOLDEN)[0])


def uniform(hashed_seeds: NDArray[np.uint64], positions: NDArray[np.int32]) -> NDArray[np.float32]:
    """One number in [0, 1) for each (seed, position): splitmix64 (Steele, Lea and Flood, 2014), its upper 24 bits."""
    bits = _mix(hashed_seeds ^ (positions.astype(np.uint64) + np.uint64(1)) * GOLDEN) >> np.uint64(40)
    return bits.astype(np.float32) * np.float32(2.0**-24)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
