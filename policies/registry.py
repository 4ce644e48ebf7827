"""Policies by name: adding one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from policies.cache_aware import CacheAwarePolicy
from policies.policy import Policy
from policies.power_of_two import PowerOfTwoPolicy
from policies.prefix.text_tree import TextTree
from policies.random import RandomPolicy
from policies.round_robin import RoundRobinPolicy

DEFAULT_PREFIX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """What a policy may be built from."""

    prefix_bytes: int
    rng: Random


_BUILDERS: dict[str, Callable[[PolicyOptions], Policy]] = {
    CacheAwarePolicy.name: lambda options: CacheAwarePolicy(TextTree(options.prefix_bytes), options.rng),
    PowerOfTwoPolicy.name: lambda options: PowerOfTwoPolicy(options.rng),
    RandomPolicy.name: lambda options: RandomPolicy(options.rng),
    RoundRobinPolicy.name: lambda options: RoundRobinPolicy(),
}

POLICY_NAMES = tuple(_BUILDERS)


def make_policy(name: str, *, prefix_bytes: int = DEFAULT_PREFIX_BYTES, seed: int | None = None) -> Policy:
    """Build a policy. ``prefix_bytes`` bounds its prefix index; equal seeds give equal draws."""
    builder = _BUILDERS.get(name)
    if builder is None:
        raise ValueError(f"unknown policy {name!r}: choose one of {', '.join(POLICY_NAMES)}")
    return builder(PolicyOptions(prefix_bytes, Random(seed)))
