"""The router benchmark's table: each figure beside the goal it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OURS, REFERENCE = "warmlane", "sglang-router"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and what is to be reached: a ``ratio`` to the reference in the same session, or ``most`` by itself."""

    figure: str
    ratio: float | None = None
    most: float | None = None

    def said(self) -> str:
        if self.ratio is not None:
            return f"<= {self.ratio:.2f}x"
        return f"<= {self.most:g}" if self.most is not None else ""

    def reached(self, ours: float | None, reference: float | None) -> str:
        """The verdict, and empty without a goal or a figure."""
        if ours is None:
            return ""
        if self.ratio is not None:
            return "" if not reference else _verdict(ours <= self.ratio * reference)
        return "" if self.most is None else _verdict(ours <= self.most)


def table(results: dict[str, Any], rows: Sequence[tuple[str, str, Sequence[Goal]]], names: Sequence[str]) -> str:
    """Markdown. ``rows``: (case, what it is, its figures); added latency is a figure less the one without a router.

    Every router of ours is held against the goal.
    """
    ours = [name for name in names if name.startswith(OURS)]
    judged = [column for name in ours for column in (f"{name}: ratio to {REFERENCE}", "reached")]
    head = ["case", "figure", *names, "goal", *judged]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, about, goals in rows:
        by = results[name]
        for goal in goals:
            direct = by.get("direct", {}).get(goal.figure, 0.0)
            values = {who: by[who][goal.figure] - direct for who in names if who in by}
            cells = [f"{values[who]:.3g}" if who in values else "-" for who in names]
            label = ("added " if direct else "") + goal.figure.replace("_", " ")
            verdicts = [cell for who in ours for cell in _judged(goal, values.get(who), values.get(REFERENCE))]
            lines.append("| " + " | ".join([about, label, *cells, goal.said(), *verdicts]) + " |")
    return "\n".join(lines)


def _judged(goal: Goal, ours: float | None, reference: float | None) -> tuple[str, str]:
    """The ratio and the verdict."""
    ratio = f"{ours / reference:.2f}" if ours is not None and reference else "-"
    return ratio, goal.reached(ours, reference)


def _verdict(reached: bool) -> str:
    return "yes" if reached else "no"
