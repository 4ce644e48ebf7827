"""A histogram whose observations are sorted into buckets only when somebody looks, or when many have come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

AT_ONCE = 65_536  # observations that are kept before they are sorted


class Observations:
    """The values seen under one set of labels; to observe one costs no more than appending to a list."""

    def __init__(self, edges: NDArray[np.float64]) -> None:
        self._edges = edges
        self._counts = np.zeros(len(edges) + 1, np.int64)
        self._sum = 0.0
        self._new: list[float] = []

    def observe(self, value: float, times: int = 1) -> None:
        if times == 1:
            self._new.append(value)
        else:
            self._new += [value] * times
        if len(self._new) >= AT_ONCE:
            self._sort()

    def told(self) -> tuple[list[int], float]:
        """How many values lie in each bucket or below it, the unbounded one last, and their sum."""
        self._sort()
        return np.cumsum(self._counts).tolist(), self._sum

    def _sort(self) -> None:
        """A value on an edge belongs to the bucket that ends there."""
        values, self._new = np.array(self._new), []
        self._counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self._counts))
        self._sum += float(values.sum())


class LateHistogram(Collector):
    """One histogram; :meth:`labels` before anything is observed, as in the client library's own."""

    def __init__(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str]) -> None:
        self._name, self._text = name, text
        self._labels = tuple(labels)
        self._edges = np.array(buckets, np.float64)
        self._children: dict[tuple[str, ...], Observations] = {}

    def labels(self, *values: str) -> Observations:
        """What is observed under these values of the labels."""
        return self._children.setdefault(values, Observations(self._edges))

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        upper = [*map(_bound, self._edges), "+Inf"]
        for values, child in self._children.items():
            counts, total = child.told()
            family.add_metric(values, list(zip(upper, counts, strict=True)), total)
        yield family


def _bound(edge: float) -> str:
    return repr(float(edge))
