"""Policies by name: adding one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from policies.bucket import BucketPolicy
from policies.cache_aware import CacheAwarePolicy
from policies.consistent_hash import ConsistentHashPolicy
from policies.cost.gate import BalanceGate
from policies.least_load import LeastLoadPolicy
from policies.passthrough import PassthroughPolicy
from policies.policy import Policy
from policies.power_of_two import PowerOfTwoPolicy
from policies.prefix.text_tree import TextTree
from policies.prefix_hash import PrefixHashPolicy
from policies.random import RandomPolicy
from policies.round_robin import RoundRobinPolicy
from policies.sticky import StickyPolicy

DEFAULT_PREFIX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """What users may set of policies; each policy takes what concerns it. None: not given."""

    cache_threshold: float | None = None
    balance_abs_threshold: int | None = None
    balance_rel_threshold: float | None = None
    prefix_token_count: int = 256
    prefix_hash_load_factor: float = 1.25
    max_idle_secs: float = 14400.0
    assignment_mode: str = "random"
    bucket_adjust_interval_secs: float = 5.0


Builder = Callable[[int, Random, PolicyOptions], Policy]


def _cache_aware(prefix_bytes: int, rng: Random, options: PolicyOptions) -> Policy:
    gate = BalanceGate.given(options.balance_abs_threshold, options.balance_rel_threshold)
    return CacheAwarePolicy(TextTree(prefix_bytes), rng, options.cache_threshold or 0.0, gate)


_BUILDERS: dict[str, Builder] = {
    CacheAwarePolicy.name: _cache_aware,
    LeastLoadPolicy.name: lambda size, rng, options: LeastLoadPolicy(rng),
    PowerOfTwoPolicy.name: lambda size, rng, options: PowerOfTwoPolicy(rng),
    RoundRobinPolicy.name: lambda size, rng, options: RoundRobinPolicy(),
    RandomPolicy.name: lambda size, rng, options: RandomPolicy(rng),
    PrefixHashPolicy.name: lambda size, rng, options: PrefixHashPolicy(
        rng, options.prefix_token_count, options.prefix_hash_load_factor
    ),
    ConsistentHashPolicy.name: lambda size, rng, options: ConsistentHashPolicy(rng, options.prefix_hash_load_factor),
    StickyPolicy.name: lambda size, rng, options: StickyPolicy(rng, options.max_idle_secs, options.assignment_mode),
    BucketPolicy.name: lambda size, rng, options: BucketPolicy(rng, options.bucket_adjust_interval_secs),
    PassthroughPolicy.name: lambda size, rng, options: PassthroughPolicy(rng),
}

POLICY_NAMES = tuple(_BUILDERS)


def make_policy(
    name: str,
    *,
    prefix_bytes: int = DEFAULT_PREFIX_BYTES,
    seed: int | None = None,
    options: PolicyOptions | None = None,
) -> Policy:
    """Build a policy. ``prefix_bytes`` bounds its prefix index; equal seeds give equal draws."""
    builder = _BUILDERS.get(name)
    if builder is None:
        raise ValueError(f"unknown policy {name!r}: choose one of {', '.join(POLICY_NAMES)}")
    return builder(prefix_bytes, Random(seed), options or PolicyOptions())
