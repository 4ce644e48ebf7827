"""A key that the client gives decides the worker: the same key, the same worker, as long as it is not too busy."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from xxhash import xxh3_64_intdigest

from policies.least_load import least_loaded
from policies.passthrough import named
from policies.policy import Candidate, Decision, Policy, RouteRequest
from policies.prefix.hash_ring import HashRing, bounded


class ConsistentHashPolicy(Policy):
    """Reasons: ``target`` (the worker was named), ``home``, ``overflow``, ``less_loaded`` (no key)."""

    name = "consistent_hashing"

    def __init__(self, rng: Random, load_factor: float) -> None:
        self._rng = rng
        self._load_factor = load_factor
        self._ring = HashRing()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        target = named(request, candidates)
        if target is not None:
            return Decision(target, reason="target")
        if not request.routing_key:
            return Decision(least_loaded(request, candidates, self._rng), reason="less_loaded")
        key = xxh3_64_intdigest(request.routing_key.encode())
        index, first = bounded(self._ring, key, candidates, self._load_factor)
        return Decision(candidates[index].worker, reason="home" if first else "overflow")
