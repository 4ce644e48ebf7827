"""In which order waiting requests are admitted (``--schedule-policy``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from random import Random

from backend.cache.radix import RadixCache
from backend.scheduler.queue import Request, WaitingQueue

Order = Callable[[WaitingQueue, RadixCache, int], list[Request]]

LPM_MAX_WAITING = 128  # beyond it matching every waiting prompt costs more than a better order saves


def make_order(policy: str, seed: int) -> Order:
    """The order called ``policy``: (queue, tree, how many are wanted) -> requests.

    ``ValueError`` for an unknown one.
    """
    if policy == "random":
        return _Random(seed)
    if policy not in ORDERS:
        raise ValueError(f"schedule policy {policy!r} is unknown; known: {', '.join([*ORDERS, 'random'])}")
    return ORDERS[policy]


def first_come(queue: WaitingQueue, radix: RadixCache, count: int) -> list[Request]:
    return list(itertools.islice(queue, count))


def longest_prefix_match(queue: WaitingQueue, radix: RadixCache, count: int) -> list[Request]:
    """Those first whose prefix is cached furthest, so that it is used before it is evicted."""
    if len(queue) > LPM_MAX_WAITING:
        return first_come(queue, radix, count)
    return _sorted(queue, count, lambda request: -_matched(request, radix))


def depth_first(queue: WaitingQueue, radix: RadixCache, count: int) -> list[Request]:
    """Requests of one branch of the tree together, the branch with the most requests first (SGLang's dfs-weight)."""
    if len(queue) > LPM_MAX_WAITING:
        return first_come(queue, radix, count)
    groups: dict[tuple[str, bytes], list[Request]] = {}
    for request in queue:
        matched = _matched(request, radix)
        groups.setdefault((request.namespace, request.tokens[:matched].tobytes()), []).append(request)
    weighty = sorted(groups.values(), key=len, reverse=True)
    return list(itertools.chain.from_iterable(weighty))[:count]


def longest_output(queue: WaitingQueue, radix: RadixCache, count: int) -> list[Request]:
    return _sorted(queue, count, lambda request: -request.sampling.max_new_tokens)


def shortest_prefill(queue: WaitingQueue, radix: RadixCache, count: int) -> list[Request]:
    return _sorted(queue, count, lambda request: request.uncached)


def by_priority(queue: WaitingQueue, radix: RadixCache, count: int) -> list[Request]:
    return _sorted(queue, count, lambda request: -request.priority)


ORDERS: dict[str, Order] = {
    "fcfs": first_come,
    "lpm": longest_prefix_match,
    "dfs-weight": depth_first,
    "lof": longest_output,
    "priority": by_priority,
    "shortest-prefill-first": shortest_prefill,
}


class _Random:
    """A new draw at every step, from a seed: the same messages give the same order."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def __call__(self, queue: WaitingQueue, radix: RadixCache, count: int) -> list[Request]:
        requests = list(queue)
        self._random.shuffle(requests)
        return requests[:count]


def _sorted(queue: Iterable[Request], count: int, key: Callable[[Request], int]) -> list[Request]:
    """Stable: equals stay in order of arrival."""
    return sorted(queue, key=key)[:count]


def _matched(request: Request, radix: RadixCache) -> int:
    return radix.matched_tokens(request.tokens[: request.cacheable], request.namespace)
