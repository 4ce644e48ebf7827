"""The last outcome of each suite against each target, so that a run of some leaves the other rows as they were."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.conformance.outcome import Case, Outcome

RESULTS = Path(__file__).parents[1] / "results" / "conformance.json"


def merged(new: Iterable[Outcome], path: Path = RESULTS) -> list[Outcome]:
    """What was known, with ``new`` in the place of older outcomes; written to ``path`` again."""
    known = {_key(outcome): outcome for outcome in _read(path)}
    known |= {_key(outcome): outcome for outcome in new}
    path.write_text(json.dumps([asdict(outcome) for outcome in known.values()], indent=1) + "\n")
    return list(known.values())


def _read(path: Path) -> list[Outcome]:
    rows = json.loads(path.read_text()) if path.is_file() else []
    return [Outcome(**{**row, "cases": [Case(**case) for case in row["cases"]]}) for row in rows]


def _key(outcome: Outcome) -> tuple[str, str]:
    return outcome.client, outcome.target
