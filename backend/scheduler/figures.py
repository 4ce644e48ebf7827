"""What the scheduler tells of itself with every step: plain numbers that it holds anyway."""

from __future__ import annotations

from backend.messages import SchedulerStats
from backend.scheduler.admission import Admission
from backend.scheduler.rows import Rows
from backend.scheduler.running import Running


def tell(stats: SchedulerStats, rows: Rows, running: Running, admission: Admission) -> None:
    """Bring the gauges of ``stats`` up to date."""
    slots, page = rows.slots, rows.page_size
    stats.running = slots.num_slots - slots.free_slots - len(running.leaving)
    stats.waiting = len(admission.waiting)
    stats.waiting_uncached_tokens = admission.waiting.uncached_tokens
    stats.cached_tokens = rows.radix.evictable_pages * page
    stats.used_tokens = stats.total_tokens - rows.room * page
    stats.evicted_tokens_total = rows.evicted_pages * page
    stats.evictions_total, stats.eviction_seconds_total = rows.evictions.times, rows.evictions.seconds
    if rows.host is not None:
        stats.host_used_tokens = rows.host.used_host_pages * page
        stats.loaded_tokens_total = rows.host.loaded_pages * page
        stats.load_backs_total, stats.load_back_seconds_total = rows.load_backs.times, rows.load_backs.seconds
    if rows.window is not None:
        shared = rows.window.shared
        stats.window_total_tokens = shared.num_pages * page
        stats.window_cached_tokens = shared.idle_pages * page
        stats.window_used_tokens = (shared.num_pages - shared.free_pages - shared.idle_pages) * page
    stats.new_token_ratio = admission.ratio.value
