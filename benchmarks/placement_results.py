"""What the placement benchmark found: kept as JSON, shown as one table, and judged against the aims."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median

import numpy as np

from policies.sim import Result
from router.replay import ORACLES, row

FIGURES = ("hit_rate", "mean", "p50", "p90", "p99", "imbalance")
COLUMNS = ("hit rate", "TTFT mean", "p50", "p90", "p99", "imbalance")
LIVE, REPLAY = "live", "replay"
OURS, OUR_POLICY = "warmlane", "cache_aware"
QUANTILES = 101  # of the times to first token, kept for the plots
NEAR_HIT_RATE, NEAR_TTFT, JUDGED_S = 0.01, 1.10, 0.2


@dataclass(frozen=True, slots=True)
class Run:
    """One workload through one router (live) or policy (replay); times in simulated seconds."""

    workload: str
    where: str
    who: str
    seed: int
    figures: dict[str, float]
    quantiles: list[float]  # of the time to first token, from the least to the most

    @classmethod
    def of(cls, workload: str, where: str, who: str, seed: int, result: Result) -> Run:
        figures = dict(zip(FIGURES, (round(value, 4) for value in row(result)), strict=True))
        quantiles = np.percentile(result.ttft, np.linspace(0, 100, QUANTILES))
        return cls(workload, where, who, seed, figures, [round(float(value), 4) for value in quantiles])


@dataclass(slots=True)
class Report:
    """Everything of one session. ``about``: date, machine, versions and settings; ``findings``: lines of text."""

    about: dict[str, str]
    possible: dict[str, float] = field(default_factory=dict)  # hit rate of one endless cache, by workload
    runs: list[Run] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = asdict(self)
        runs = ",\n".join(json.dumps(run) for run in parts.pop("runs"))  # a line each
        path.write_text(f'{json.dumps(parts, indent=1)[:-2]},\n "runs": [\n{runs}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Raises ``ValueError`` when the file holds something else."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            runs = [Run(**run) for run in kept.pop("runs")]
            return cls(runs=runs, **kept)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no report of this benchmark: {error!r}") from None

    def of(self, workload: str, where: str, who: str) -> list[Run]:
        return [run for run in self.runs if (run.workload, run.where, run.who) == (workload, where, who)]

    def median(self, workload: str, where: str, who: str, figure: str) -> float:
        return median(run.figures[figure] for run in self.of(workload, where, who))

    def mean(self, workload: str, where: str, who: str, figure: str) -> float:
        return mean(run.figures[figure] for run in self.of(workload, where, who))

    def who(self, workload: str, where: str) -> list[str]:
        """Who ran ``workload`` there, in the order of their first runs."""
        return list(dict.fromkeys(run.who for run in self.runs if (run.workload, run.where) == (workload, where)))


def table(report: Report, missing: Iterable[str] = ()) -> str:
    """Markdown: a line for each workload and router or policy; the median, and behind it the least and the most.

    Workloads that are ``missing`` had no trace.
    """
    lines = ["| workload | | router or policy | " + " | ".join(COLUMNS) + " | seeds |"]
    lines.append("|" + "---|" * (len(COLUMNS) + 4))
    lines += [f"| {name} | | no trace given |" + " |" * (len(COLUMNS) + 1) for name in missing]
    for workload in dict.fromkeys(run.workload for run in report.runs):
        for where in (LIVE, REPLAY):
            for who in report.who(workload, where):
                lines.append(_line(workload, where, who, report.of(workload, where, who)))
    return "\n".join(lines)


def _line(workload: str, where: str, who: str, runs: Sequence[Run]) -> str:
    cells = [_cell([run.figures[figure] for run in runs]) for figure in FIGURES]
    seeds = " ".join(str(run.seed) for run in runs)
    return f"| {workload} | {where} | {who} | " + " | ".join(cells) + f" | {seeds} |"


def _cell(values: Sequence[float]) -> str:
    middle = f"{median(values):.3f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3f}-{max(values):.3f})"


def verdicts(report: Report) -> list[str]:
    """Each aim with the figures that it is judged by."""
    lines = []
    for workload in report.possible:
        lines += _beside_oracle(report, workload) + _beside_peers(report, workload) + _agreement(report, workload)
    return lines


def _beside_oracle(report: Report, workload: str) -> list[str]:
    """In replay: the mean over the seeds against the best greedy weight."""
    known = report.who(workload, REPLAY)
    oracles = [name for name in ORACLES if name in known]
    if OUR_POLICY not in known or not oracles:
        return []
    hits = {name: report.mean(workload, REPLAY, name, "hit_rate") for name in (OUR_POLICY, *oracles)}
    best = max(oracles, key=hits.__getitem__)
    parts = [f"hit rate {hits[OUR_POLICY]:.3f} (best greedy {hits[best]:.3f})"]
    for figure in ("mean", "p50", "p90", "p99"):
        times = {name: report.mean(workload, REPLAY, name, figure) for name in (OUR_POLICY, *oracles)}
        least = min(times[name] for name in oracles)
        parts.append(f"TTFT {figure} {times[OUR_POLICY]:.3f} s, {times[OUR_POLICY] / least:.2f}x the best greedy's")
    return [f"{workload}, replay: " + "; ".join(parts)]


def _beside_peers(report: Report, workload: str) -> list[str]:
    """Live: hit rate, p90 and p99 against the best other router of the same session."""
    known = report.who(workload, LIVE)
    peers = [name for name in known if not name.startswith(OURS)]
    if OURS not in known or not peers:
        return []
    hits = {name: report.median(workload, LIVE, name, "hit_rate") for name in (OURS, *peers)}
    best = max(peers, key=hits.__getitem__)
    good = hits[OURS] >= hits[best] - NEAR_HIT_RATE
    parts = [f"hit rate {hits[OURS]:.3f}, {best} {hits[best]:.3f}"]
    for figure in ("p90", "p99"):
        times = {name: report.median(workload, LIVE, name, figure) for name in (OURS, *peers)}
        first = min(peers, key=times.__getitem__)
        good = good and times[OURS] <= times[first]
        parts.append(f"{figure} {times[OURS]:.2f} s, {first} {times[first]:.2f} s")
    return [f"{workload}, live: {'reached' if good else 'NOT reached'}: " + "; ".join(parts)]


def _agreement(report: Report, workload: str) -> list[str]:
    """Live against the replay of the same seeds: how far the figures of one machine can be trusted."""
    live = {run.seed: run for run in report.of(workload, LIVE, OURS)}
    replayed = {run.seed: run for run in report.of(workload, REPLAY, OUR_POLICY)}
    both = sorted(live.keys() & replayed.keys())
    if not both:
        return []
    parts = []
    for figure in ("p50", "p90", "p99"):
        ratio = mean(live[seed].figures[figure] for seed in both) / mean(
            replayed[seed].figures[figure] for seed in both
        )
        parts.append(f"{figure} {ratio:.2f}x")
    off = mean(live[seed].figures["hit_rate"] - replayed[seed].figures["hit_rate"] for seed in both)
    return [f"{workload}, live against replay: " + ", ".join(parts) + f"; hit rate {off:+.3f}"]


def text(report: Report, missing: Iterable[str] = ()) -> str:
    """The whole report."""
    about = [f"- {name}: {value}" for name, value in report.about.items()]
    possible = [f"- {name}: a hit rate of {value:.3f} is possible" for name, value in report.possible.items()]
    found = [f"- {line}" for line in (*verdicts(report), *report.findings)]
    return "\n".join([*about, *possible, "", table(report, missing), "", *found])
