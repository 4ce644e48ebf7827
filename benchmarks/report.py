"""Rows of a benchmark's table: a figure, the goal it is held against, and what it was made of."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """``goal`` is to be reached from above, or from below with ``at_least``; None: told beside the others."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    known: str = ""  # what others take for it
    detail: str = ""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def lines(rows: Sequence[Row]) -> Iterable[str]:
    """The table as text."""
    width = max(len(row.name) for row in rows) + 2
    yield f"{'':<{width}}{'figure':>10} {'':<4}{'goal':>10}{'':>7}"
    for row in rows:
        sign = ">=" if row.at_least else "<="
        goal = "" if row.goal is None else f"{sign} {row.goal:g}"
        verdict = {None: "", True: "yes", False: "NO"}[row.reached]
        more = "; ".join(filter(None, (f"known: {row.known}" if row.known else "", row.detail)))
        yield f"{row.name:<{width}}{row.value:>10.3g} {row.unit:<4}{goal:>10}{verdict:>5}  {more}".rstrip()


def report(rows: Sequence[Row], save_as: str | None = None) -> None:
    """Print the table; with ``save_as`` write it to ``benchmarks/results/NAME.json`` too."""
    print("\n".join(lines(rows)), flush=True)
    if save_as is None:
        return
    RESULTS.mkdir(exist_ok=True)
    machine = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    content = {"when": time.strftime("%Y-%m-%d %H:%M"), **machine, "rows": [asdict(row) for row in rows]}
    path = RESULTS / f"{save_as}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"saved to {path}")
