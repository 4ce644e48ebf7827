"""How decode steps ran, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass

from backend.messages import SchedulerStats


@dataclass(slots=True)
class DecodePasses:
    """Steps in which every row computed one token. Counted where steps run, read anywhere."""

    graph: int = 0  # replays of a CUDA graph
    plain: int = 0
    by_graph: bool = False  # whether the last one was a replay

    def count(self, *, graph: bool) -> None:
        """One more."""
        self.by_graph = graph
        if graph:
            self.graph += 1
        else:
            self.plain += 1

    def tell(self, stats: SchedulerStats) -> None:
        """Bring the counters of ``stats`` up to date."""
        stats.graph_decodes_total, stats.plain_decodes_total = self.graph, self.plain
        stats.decodes_by_graph = self.by_graph
