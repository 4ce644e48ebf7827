"""How a client's script tells its results: a line of JSON behind a mark for each. Needs nothing but Python."""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable
from typing import Any

MARK = "@conformance "
REASON_CHARS = 300


class Skip(Exception):
    """A case that cannot be tried here, and why."""


def tell(**what: Any) -> None:
    print(MARK + json.dumps(what), flush=True)


def version(text: str) -> None:
    tell(version=text)


def note(text: str) -> None:
    """Something for the page besides passed and failed: a figure, a module that was missing."""
    tell(note=text)


def case(name: str, run: Callable[[], object]) -> None:
    """Run one case; whatever it raises is the reason why it failed."""
    try:
        run()
    except Skip as skipped:
        tell(case=name, state="skipped", reason=str(skipped)[:REASON_CHARS])
    except Exception as error:
        tell(case=name, state="failed", reason=_reason(error))
    else:
        tell(case=name, state="passed")


def _reason(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split()) or (where.line or "")
    return f"{type(error).__name__}: {said}"[:REASON_CHARS]


def check(holds: bool, what: str) -> None:
    """Raise ``AssertionError`` naming ``what`` was expected."""
    if not holds:
        raise AssertionError(what)


def run_all(cases: dict[str, Callable[[], object]]) -> None:
    for name, run in cases.items():
        case(name, run)


def arguments() -> argparse.Namespace:
    """What every script is given: where the server is, what it serves, and where data and tokenizer lie."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--model", default="default")
    parser.add_argument("--tokenizer", help="a folder that transformers reads")
    parser.add_argument("--data", help="a folder of questions")
    parser.add_argument("--folder", default=".", help="for what the client writes")
    parser.add_argument("--part", default="1/1", help="of its cases: the first of two parts is 1/2")
    return parser.parse_args()
