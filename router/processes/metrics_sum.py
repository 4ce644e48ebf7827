"""One exposition from those of all processes."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

Family = tuple[str, str]  # name and type: the gauge x and the counter x_total differ in the latter only
Key = tuple[str, tuple[tuple[str, str], ...]]  # a sample's name and labels

# Gauges that every process reads from the same state.
COMMON = frozenset(
    {
        "smg_worker_pool_size", "smg_worker_health", "warmlane_draining", "warmlane_block_index_bytes",
        "warmlane_kv_event_lag_seconds", "warmlane_kv_blocks", "warmlane_kv_exact",
    }
)  # fmt: skip


class Summed(Collector):
    """Adds expositions up; of :data:`COMMON` gauges the largest counts."""

    def __init__(self) -> None:
        self._families: dict[Family, Metric] = {}
        self._values: dict[Family, dict[Key, float]] = {}

    def add(self, exposition: str, *, counters_only: bool = False) -> None:
        """``counters_only``: of a process that is no more, whose counts stay and whose state does not."""
        for family in text_string_to_metric_families(exposition):
            if counters_only and family.type not in ("counter", "histogram"):
                continue
            which = (family.name, family.type)
            self._families.setdefault(which, family)
            values = self._values.setdefault(which, {})
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                before = values.get(key)
                if before is None:
                    values[key] = sample.value
                else:
                    values[key] = max(before, sample.value) if family.name in COMMON else before + sample.value

    def collect(self) -> Iterable[Metric]:
        for which, family in self._families.items():
            whole = Metric(family.name, family.documentation, family.type)
            for (sample, labels), value in self._values[which].items():
                whole.add_sample(sample, dict(labels), value)
            yield whole

    def describe(self) -> Iterable[Metric]:
        return ()

    def text(self) -> bytes:
        """The exposition of the sum."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)
