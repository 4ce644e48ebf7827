"""One command: servers, routers in front of them, and every client in turn.

    python -m benchmarks.conformance [--data DIR] [--only NAME ...] [--targets backend]

It writes docs/conformance.md; rows of suites that are not run stay as they were. Exits with 1 when a case failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.conformance.data import prepare, save_tokenizer
from benchmarks.conformance.lanes import Job, in_rows, install, run_all
from benchmarks.conformance.outcome import Outcome
from benchmarks.conformance.page import page, table
from benchmarks.conformance.reference import compare
from benchmarks.conformance.store import merged
from benchmarks.conformance.suites import SUITES

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with hellaswag*.jsonl[.gz] and gsm8k*.jsonl[.gz]")
    parser.add_argument("--only", nargs="+", metavar="SCRIPT", choices=sorted({suite.script for suite in SUITES}))
    parser.add_argument("--targets", nargs="+", choices=["backend", "router"], default=["backend", "router"])
    parser.add_argument("--lanes", type=int, default=2, help="suites at a time, each with servers of its own")
    args = parser.parse_args()
    chosen = [suite for suite in SUITES if args.only is None or suite.script in args.only]
    jobs = [Job(suite, target) for suite in chosen for target in (args.targets if suite.routed else ["backend"])]
    pythons = install(chosen)
    began = time.perf_counter()
    with TemporaryDirectory(prefix="conformance-") as name:
        folder = Path(name)
        for part in ("tokenizer", "data"):
            (folder / part).mkdir()
        save_tokenizer(folder / "tokenizer")
        questions = prepare(args.data, folder / "data")

        def heard(outcome: Outcome) -> None:
            if outcome.client.startswith("lm-eval") and (saved := folder / "hellaswag.json").is_file():
                compare(saved, outcome)  # in its lane, while the other one goes on
            _tell(outcome)

        outcomes = in_rows(jobs, run_all(jobs, pythons, folder, min(args.lanes, len(jobs)), heard))
        for outcome in outcomes:
            outcome.questions = questions if outcome.client.startswith("lm-eval") else ""
    print("\n".join(table(outcomes)))
    whole = time.perf_counter() - began if args.only is None and len(args.targets) == 2 else None
    PAGE.write_text(page(merged(outcomes), whole))
    sys.exit(0 if all(each.passed for each in outcomes) else 1)


def _tell(outcome: Outcome) -> None:
    print(f"{outcome.client}, {outcome.target}: {_said(outcome)}", flush=True)


def _said(outcome: Outcome) -> str:
    lines = [f"{outcome.count('passed')} of {len(outcome.cases)} passed in {outcome.seconds:.0f} s {outcome.trouble}"]
    return "\n  ".join(lines + [f"{each.name}: {each.reason}" for each in outcome.cases if each.state == "failed"])


if __name__ == "__main__":
    main()
