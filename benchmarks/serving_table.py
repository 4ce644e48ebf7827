"""The serving benchmark's figures, from what its clients saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PERCENTILES = (50, 90, 99)


class SeenLike(Protocol):
    """One request; times in seconds since the run's beginning."""

    sent: float
    ended: float
    events: list[float]
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    error: str


def times(seen: Sequence[SeenLike]) -> dict[str, list[float]]:
    """Milliseconds by kind. ``ITL`` has an entry for each gap, the others one for each request."""
    good = [each for each in seen if not each.error and each.events]
    return {
        "TTFT": [(each.events[0] - each.sent) * 1000 for each in good],
        "TPOT": [tpot(each) * 1000 for each in good if each.tokens > 1],
        "ITL": [gap * 1000 for each in good for gap in np.diff(each.events).tolist()],
        "E2E": [(each.ended - each.sent) * 1000 for each in good],
    }


def tpot(seen: SeenLike) -> float:
    """Seconds per token behind the first."""
    return (seen.events[-1] - seen.events[0]) / (seen.tokens - 1) if seen.tokens > 1 else 0.0


def summary(seen: Sequence[SeenLike], ttft_limit: float, tpot_limit: float) -> dict[str, Any]:
    """All figures of a run; rates are per second of it. Limits in seconds."""
    good = [each for each in seen if not each.error and each.events]
    length = max((each.ended for each in seen), default=0.0) - min((each.sent for each in seen), default=0.0)
    kept = [each for each in good if each.events[0] - each.sent <= ttft_limit and tpot(each) <= tpot_limit]
    prompt = sum(each.prompt_tokens for each in good)
    rates = {"requests": len(good), "good requests": len(kept), "output tokens": sum(each.tokens for each in good)}
    rates["prompt tokens"] = prompt
    return {
        "requests": len(seen),
        "failed": len(seen) - len(good),
        "seconds": length,
        "rates": {name: count / length if length else 0.0 for name, count in rates.items()},
        "cached": sum(each.cached_tokens for each in good) / prompt if prompt else 0.0,
        "ms": {kind: spread(values) for kind, values in times(seen).items() if values},
        "errors": dict(Counter(each.error or "an answer without a token" for each in seen if each not in good)),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    marks = np.percentile(values, PERCENTILES)
    return {"mean": float(np.mean(values)), **{f"p{p}": float(v) for p, v in zip(PERCENTILES, marks, strict=True)}}


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| ms | mean | " + " | ".join(f"p{p}" for p in PERCENTILES) + " |",
        "|---|---|" + "---|" * len(PERCENTILES),
    ]
    for kind, values in found["ms"].items():
        lines.append(f"| {kind} | " + " | ".join(f"{value:.1f}" for value in values.values()) + " |")
    rates = ", ".join(f"{value:.4g} {name}/s" for name, value in found["rates"].items())
    ended = f"{found['requests']} requests in {found['seconds']:.1f} s, {found['failed']} failed"
    return "\n".join([*lines, "", f"{ended}: {rates}; {found['cached']:.1%} of the prompt tokens cached"])


def plot(seen: Sequence[SeenLike], path: Path) -> None:
    """Cumulative distributions of TTFT, TPOT, ITL and E2E."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.2), layout="constrained")
    for axis, (kind, values) in zip(axes, times(seen).items(), strict=True):
        ordered = np.sort(values)
        axis.plot(ordered, np.arange(1, len(ordered) + 1) / max(len(ordered), 1))
        axis.set(title=kind, xlabel="ms", ylim=(0, 1))
    figure.savefig(path, dpi=90)
