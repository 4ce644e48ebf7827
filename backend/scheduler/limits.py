"""Sizes and rules that one scheduler works by."""

from __future__ import annotations

from dataclasses import dataclass

from backend.cache.host_tree import HostSettings
from backend.scheduler.rows import Rows
from backend.scheduler.window import WindowSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """Sizes that bound the scheduler, all resolved."""

    max_running_requests: int
    max_queued_requests: int | None  # None: unbounded
    context_length: int  # longest prompt + output
    vocab_size: int = 0  # needed where grammars are
    num_pages: int
    page_size: int
    prefill_budget: int  # prompt tokens computed per step
    radix_cache: bool = True
    eviction: str = "lru"
    deterministic: bool = False  # a position is always computed in the same shape; one page is a block of a prompt
    host: HostSettings | None = None  # a second tier of the prefix cache in the host's memory
    window: WindowSettings | None = None  # layers with a window have pages of their own; not beside ``host``
    overlap: bool = False  # launch a step before the one before it is settled
    decode_steps: int = 1  # waiting requests are looked at once in so many steps while others run
    conservativeness: float = 1.0
    schedule_policy: str = "fcfs"
    preemption_threshold: int | None = None  # a higher priority by more preempts (policy priority only); None: never
    random_seed: int = 0
    check_invariants: bool = False


def make_rows(limits: SchedulerLimits) -> Rows:
    """Slots, pages and tree of the sizes in ``limits``."""
    return Rows(
        num_slots=limits.max_running_requests,
        context_length=limits.context_length,
        num_pages=limits.num_pages,
        page_size=limits.page_size,
        keep_prefixes=limits.radix_cache,
        eviction=limits.eviction,
        share_outputs=not limits.deterministic,
        host=limits.host if limits.radix_cache else None,
        window=limits.window,
    )
