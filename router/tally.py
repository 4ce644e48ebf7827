"""Counters and histograms that cost a few dozen nanoseconds to move; prometheus_client writes them out.

For one thread: nothing is locked. Labelled series are made at first use and kept. What is moved for every request takes
label values as a tuple: a method with any number of arguments costs several times as much when it is compiled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from router.exposition import Written

INFINITY = float("inf")


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Counter:
    """A family of counters. ``labels`` finds one; without labels it is one itself."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._series: dict[tuple[str, ...], Count] = {} if labels else {(): Count()}
        registry.register(Written(self.collect))

    def labels(self, *values: str) -> Count:
        """The series with these label values."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Count()
        return series

    def count(self, values: tuple[str, ...]) -> None:
        """One more of the series with these label values."""
        (self._series.get(values) or self.labels(*values)).value += 1

    def inc(self, amount: float = 1) -> None:
        self._series[()].value += amount

    def remove(self, *values: str) -> None:
        """Drop a series from the exposition; whoever holds it may go on counting."""
        self._series.pop(values, None)

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        return [family]


class Observed:
    """One series of a histogram."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Histogram:
    """A family of histograms with the upper bounds ``buckets``; above the last one lies infinity."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = tuple(sorted({float(bound) for bound in buckets} - {INFINITY}))
        self._series: dict[tuple[str, ...], Observed] = {}
        registry.register(Written(self.collect))

    def labels(self, *values: str) -> Observed:
        """The series with these label values."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Observed(self._bounds)
        return series

    def observe(self, values: tuple[str, ...], amount: float) -> None:
        """``amount`` goes to the series with these label values."""
        (self._series.get(values) or self.labels(*values)).observe(amount)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in self._series.items():
            below, buckets = 0, []
            for bound, count in zip([*self._bounds, INFINITY], series.counts, strict=True):
                below += count
                buckets.append(("+Inf" if bound == INFINITY else repr(bound), below))
            family.add_metric(values, buckets, series.sum)
        return [family]
