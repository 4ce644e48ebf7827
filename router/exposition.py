"""What prometheus_client reads at a scrape, where the numbers themselves are kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Written(Collector):
    """Families that somebody else writes out."""

    def __init__(self, write: Callable[[], Iterable[Metric]]) -> None:
        self._write = write

    def collect(self) -> Iterable[Metric]:
        return self._write()


class Gauges(Collector):
    """Gauges read from live state at each scrape."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, str, dict[str, str], float]]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """``read`` gives (name, help, labels, value) rows; those of one name form a family."""
        families: dict[str, GaugeMetricFamily] = {}
        for name, text, labels, value in self._read():
            family = families.get(name) or families.setdefault(name, GaugeMetricFamily(name, text, labels=list(labels)))
            family.add_metric(list(labels.values()), value)
        return families.values()

    def describe(self) -> Iterable[Metric]:
        return ()
