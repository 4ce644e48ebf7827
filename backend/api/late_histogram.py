"""A histogram whose observations are sorted into buckets only when somebody looks, or when many have come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

AT_ONCE = 65_536  # observations that are kept before they are sorted


class LateHistogram(Collector):
    """One histogram with fixed labels; observing costs no more than appending to a list."""

    def __init__(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str], values: Sequence[str]
    ) -> None:
        self._name, self._text = name, text
        self._labels, self._values = tuple(labels), tuple(values)
        self._edges = np.array(buckets)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        self._new: list[float] = []

    def observe(self, value: float) -> None:
        self._new.append(value)
        if len(self._new) >= AT_ONCE:
            self._sort()

    def collect(self) -> Iterator[Metric]:
        self._sort()
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        upper = [*map(_bound, self._edges), "+Inf"]
        family.add_metric(self._values, list(zip(upper, np.cumsum(self._counts).tolist(), strict=True)), self._sum)
        yield family

    def _sort(self) -> None:
        """A value on an edge belongs to the bucket that ends there."""
        values, self._new = np.array(self._new), []
        self._counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self._counts))
        self._sum += float(values.sum())


def _bound(edge: float) -> str:
    return repr(float(edge))
