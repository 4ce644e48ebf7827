"""How long the scheduler's prefix cache takes to make room, and to bring back what the host tier holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from backend.api.late_histogram import LateHistogram
from backend.messages import SchedulerStats

BUCKETS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class CacheTimes(Collector):
    """Histograms out of running totals. Several of one message count as equally long."""

    def __init__(self, labels: Sequence[str], values: Sequence[str]) -> None:
        self._evictions = LateHistogram(
            "sglang:eviction_duration_seconds", "Time to drop prefixes from the cache for a step", BUCKETS, labels
        )
        self._loads = LateHistogram(
            "sglang:load_back_duration_seconds",
            "Time of the scheduler to order a prefix back from the host tier; the copies run beside it",
            BUCKETS,
            labels,
        )
        self._evicted, self._loaded = self._evictions.labels(*values), self._loads.labels(*values)
        self.restarted()

    def restarted(self) -> None:
        """The totals begin at zero again."""
        self._told = SchedulerStats()

    def record(self, stats: SchedulerStats) -> None:
        """The totals after a step."""
        told = self._told
        if count := stats.evictions_total - told.evictions_total:
            seconds = stats.eviction_seconds_total - told.eviction_seconds_total
            self._evicted.observe(seconds / count, count)
        if count := stats.load_backs_total - told.load_backs_total:
            seconds = stats.load_back_seconds_total - told.load_back_seconds_total
            self._loaded.observe(seconds / count, count)
        self._told = stats

    def collect(self) -> Iterator[Metric]:
        yield from self._evictions.collect()
        yield from self._loads.collect()
