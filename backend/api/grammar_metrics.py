"""Metrics of structured output, read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.api.late_histogram import LateHistogram
from backend.grammar import GrammarFigures

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class GrammarMetrics(Collector):
    """Tells ``figures``, and takes the times out of them."""

    def __init__(self, figures: GrammarFigures, labels: Sequence[str], values: Sequence[str]) -> None:
        self._figures = figures
        self._labels, self._values = tuple(labels), tuple(values)
        self._family = LateHistogram(
            "sglang:grammar_compilation_time_seconds", "Time that a new grammar took", BUCKETS, labels
        )
        self._seconds = self._family.labels(*values)

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        yield self._counter("num_grammar", "Grammars that were asked for", figures.total)
        yield self._counter("num_grammar_cache_hit", "Those that were known from before", figures.known)
        yield self._counter("num_grammar_aborted", "Those that were refused", figures.refused)
        yield self._counter("num_grammar_timeout", "Those that took too long to compile", figures.timed_out)
        while figures.seconds:
            self._seconds.observe(figures.seconds.popleft())
        yield from self._family.collect()

    def _counter(self, name: str, text: str, value: int) -> CounterMetricFamily:
        counter = CounterMetricFamily(f"sglang:{name}", text, labels=self._labels)
        counter.add_metric(self._values, value)
        return counter
