"""Pictures of a replay. Needs matplotlib, which nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

from policies.sim import Result

WINDOWS = 40  # points of the curve over time


def plot(path: Path, results: Mapping[str, Result]) -> None:
    """Left: the share of requests answered within a time. Right: the hit rate in windows of the trace."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, hits) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    for name, result in results.items():
        style = "--" if name.startswith("greedy") else "-"
        ordered = np.sort(result.ttft)
        times.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), style, label=name)
        hits.plot(*hit_rate_over_time(result), style, label=name)
    times.set(xscale="log", xlabel="time to first token (s)", ylabel="share of requests", ylim=(0, 1))
    hits.set(xlabel="time (s)", ylabel="hit rate", ylim=(0, None))
    for axes in (times, hits):
        axes.grid(alpha=0.3)
    times.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def hit_rate_over_time(result: Result) -> tuple[list[float], list[float]]:
    """Middle of each window (s), and cached over prompt tokens in it."""
    edges = np.linspace(0.0, float(result.arrival[-1]) or 1.0, WINDOWS + 1)
    window = np.clip(np.digitize(result.arrival, edges) - 1, 0, WINDOWS - 1)
    prompt = np.bincount(window, weights=result.prompt, minlength=WINDOWS)
    cached = np.bincount(window, weights=result.cached, minlength=WINDOWS)
    full = prompt > 0
    middle = (edges[:-1] + edges[1:]) / 2
    return middle[full].tolist(), (cached[full] / prompt[full]).tolist()
