"""One command: a server, a router in front of it, and every client in turn.

    python -m benchmarks.conformance [--data DIR] [--only NAME ...] [--targets backend]

It writes docs/conformance.md; rows of suites that are not run stay as they were. Exits with 1 when a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.conformance.data import prepare, save_tokenizer
from benchmarks.conformance.outcome import Outcome
from benchmarks.conformance.page import page, table
from benchmarks.conformance.reference import compare
from benchmarks.conformance.store import merged
from benchmarks.conformance.suites import SUITES, Suite
from benchmarks.processes import free_port, running

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
MODEL = "conformance"
SERVER = ("--served-model-name", MODEL, "--tool-call-parser", "qwen")


@contextlib.contextmanager
def servers() -> Iterator[dict[str, str]]:
    """URLs of a backend and of a router in front of it."""
    with contextlib.ExitStack() as stack:
        backend, front = free_port(), free_port(following=1)
        url = stack.enter_context(running("backend.launch_server", *SERVER, "--port", str(backend), port=backend))
        hosts = ("--router-hosts", f"127.0.0.1:{backend}", "--port", str(front), "--log-level", "warning")
        router = stack.enter_context(running("router.launch_router", *hosts, port=front, path="/readiness"))
        yield {"backend": url, "router": router}


def run(suite: Suite, target: str, url: str, folder: Path) -> Outcome:
    """One suite, whatever becomes of it: a client that cannot be installed or runs too long is an outcome as well."""
    outcome = Outcome(suite.client, suite.name, target)
    try:
        python = suite.environment.python()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        outcome.trouble = f"not installed: {' '.join(str(said).split())[-300:]}"
        return outcome
    where = ["--model", MODEL, "--tokenizer", folder / "tokenizer", "--data", folder / "data", "--folder", folder]
    started = time.perf_counter()
    log = folder / f"{suite.script}-{target}.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [python, suite.path, url, *where],
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_PROXY": "127.0.0.1"},
        )
        try:
            status = process.wait(suite.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            outcome.trouble = f"not at its end after {suite.seconds:.0f} seconds"
            status = 0
    outcome.seconds = time.perf_counter() - started
    said = log.read_text(errors="replace").splitlines()
    outcome.read(said)
    if status:
        outcome.trouble = f"ended with status {status}: {' '.join(said[-3:])[-300:]}"
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with hellaswag*.jsonl[.gz] and gsm8k*.jsonl[.gz]")
    parser.add_argument("--only", nargs="+", metavar="SCRIPT", choices=[suite.script for suite in SUITES])
    parser.add_argument("--targets", nargs="+", choices=["backend", "router"], default=["backend", "router"])
    args = parser.parse_args()
    chosen = [suite for suite in SUITES if args.only is None or suite.script in args.only]
    outcomes: list[Outcome] = []
    with TemporaryDirectory(prefix="conformance-") as name:
        folder = Path(name)
        for part in ("tokenizer", "data"):
            (folder / part).mkdir()
        save_tokenizer(folder / "tokenizer")
        questions = prepare(args.data, folder / "data")
        with servers() as urls:
            for suite in chosen:
                for target in args.targets if suite.routed else ["backend"]:
                    outcomes.append(run(suite, target, urls[target], folder))
                    print(f"{suite.client}, {target}: {_said(outcomes[-1])}", flush=True)
        if (saved := folder / "hellaswag.json").is_file():
            compare(saved, next(each for each in outcomes if each.client.startswith("lm-eval")))
        for outcome in outcomes:
            outcome.questions = questions if outcome.client.startswith("lm-eval") else ""
    print("\n".join(table(outcomes)))
    PAGE.write_text(page(merged(outcomes)))
    sys.exit(0 if all(each.passed for each in outcomes) else 1)


def _said(outcome: Outcome) -> str:
    lines = [f"{outcome.count('passed')} of {len(outcome.cases)} passed in {outcome.seconds:.0f} s {outcome.trouble}"]
    return "\n  ".join(lines + [f"{each.name}: {each.reason}" for each in outcome.cases if each.state == "failed"])


if __name__ == "__main__":
    main()
