"""What became of a suite: its cases, each passed, failed or skipped with a reason."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.conformance.clients.cases import MARK


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    state: str  # "passed", "failed" or "skipped"
    reason: str = ""


@dataclass(slots=True)
class Outcome:
    """One suite of one client against one target. ``trouble``: why it did not come to its end."""

    client: str
    suite: str
    target: str
    version: str = ""
    seconds: float = 0.0
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what the client measured or could not do
    trouble: str = ""
    questions: str = ""  # where they came from, of a suite that asks some
    when: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))

    def count(self, state: str) -> int:
        return sum(case.state == state for case in self.cases)

    @property
    def passed(self) -> bool:
        return not self.trouble and not self.count("failed")

    def read(self, output: Iterable[str]) -> None:
        """Take in what the client's script wrote; lines that are not ours are the client's own words."""
        for line in output:
            if line.startswith(MARK):
                self._take(json.loads(line.removeprefix(MARK)))

    def join(self, other: Outcome) -> None:
        """Another part of the same suite."""
        self.seconds += other.seconds
        self.cases += other.cases
        self.notes += [note for note in other.notes if note not in self.notes]
        self.trouble = "; ".join(filter(None, (self.trouble, other.trouble)))

    def _take(self, told: dict[str, Any]) -> None:
        if "version" in told:
            self.version = told["version"]
        elif "note" in told:
            self.notes.append(told["note"])
        else:
            self.cases.append(Case(told["case"], told["state"], told.get("reason", "")))
