"""The first tokens of a prompt decide its worker: no index, and every replica agrees."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from xxhash import xxh3_64_intdigest

from policies.least_load import least_loaded
from policies.policy import Candidate, Decision, Policy, RouteRequest
from policies.prefix.hash_ring import HashRing, bounded

BYTES_PER_TOKEN = 4


class PrefixHashPolicy(Policy):
    """Hashes the first ``prefix_tokens`` tokens onto a ring with bounded loads.

    Reasons: ``home``, ``overflow`` (the home has too many requests), ``less_loaded`` (a request without text).
    """

    name = "prefix_hash"

    def __init__(self, rng: Random, prefix_tokens: int, load_factor: float) -> None:
        self._rng = rng
        self._prefix_bytes = prefix_tokens * BYTES_PER_TOKEN
        self._load_factor = load_factor
        self._ring = HashRing()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        if not request.text:
            return Decision(least_loaded(request, candidates, self._rng), reason="less_loaded")
        seed = xxh3_64_intdigest(f"{request.model}\0{request.namespace}".encode())
        key = xxh3_64_intdigest(request.text[: self._prefix_bytes], seed)
        index, first = bounded(self._ring, key, candidates, self._load_factor)
        return Decision(candidates[index].worker, reason="home" if first else "overflow")
