"""Pictures of a placement report: times to first token, and hit rates. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.placement_results import LIVE, QUANTILES, REPLAY, Report, Run

SHOWN = ("cache_aware", "least_load", "round_robin", "bucket", "greedy-1", "greedy-3")  # of the replayed ones


def plots(report: Report, folder: Path) -> list[Path]:
    """``placement-live.png`` and ``placement-replay.png``, as far as there are such runs."""
    written = []
    for where in (LIVE, REPLAY):
        runs = [run for run in report.runs if run.where == where and run.workload in report.possible]
        if where == REPLAY:
            runs = [run for run in runs if run.who in SHOWN]
        if runs:
            path = folder / f"placement-{where}.png"
            _plot(runs, path)
            written.append(path)
    return written


def _plot(runs: list[Run], path: Path) -> None:
    """A column for each workload. Above: the share of requests answered within a time; below: hit rates."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    workloads = list(dict.fromkeys(run.workload for run in runs))
    names = list(dict.fromkeys(run.who for run in runs))
    figure, axes = pyplot.subplots(
        2, len(workloads), figsize=(4.2 * len(workloads), 6), squeeze=False, height_ratios=(3, 1.4)
    )
    share = np.linspace(0, 1, QUANTILES)
    for column, workload in enumerate(workloads):
        times, hits = axes[0, column], axes[1, column]
        for number, name in enumerate(names):
            found = [run for run in runs if (run.workload, run.who) == (workload, name)]
            if not found:
                continue
            style = "--" if name.startswith("greedy") else "-"
            times.plot(
                np.median([run.quantiles for run in found], axis=0), share, style, color=f"C{number}", label=name
            )
            hits.barh(name, np.median([run.figures["hit_rate"] for run in found]), color=f"C{number}")
        times.set(title=workload, xscale="log", xlabel="time to first token (s)", ylim=(0, 1))
        hits.set(xlabel="hit rate", xlim=(0, None))
        hits.invert_yaxis()
        for axis in (times, hits):
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("share of requests")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
