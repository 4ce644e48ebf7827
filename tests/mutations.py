"""Does a test fail when a guard is removed? On demand: ``python -m tests.mutations [--only WORDS] [--write]``.

Each mutation is one textual change in a temporary copy of the sources; the first test that fails then is told. One that
no test notices is an error. ``--write`` keeps the list in docs/mutations.md; what was not tried keeps its row.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mutations.md"
COPIED = ("backend", "tests", "pyproject.toml")
SECONDS = 600
TESTS = ("tests/backend/scheduler/test_loop.py", "tests/backend/scheduler/test_life.py")
SAMPLER = ("tests/backend/runner/test_sampler.py",)
RADIX = ("tests/backend/cache/test_radix.py", *TESTS)


class Mutation(NamedTuple):
    guard: str  # what is taken away
    path: str
    old: str
    new: str
    tests: tuple[str, ...] = TESTS


MUTATIONS = (
    Mutation(
        "a row is given back only when no launched step refers to it",
        "backend/scheduler/running.py",
        "if self.slots.in_flight[slot]:",
        "if False:",
    ),
    Mutation(
        "results of a row that was left are told from those of its next owner (generation)",
        "backend/scheduler/running.py",
        "live = None if batch.version == slots.version else slots.generation[rows] == batch.generations",
        "live = None",
    ),
    Mutation(
        "after an insert the row goes on with the tree's pages",
        "backend/scheduler/rows.py",
        "        slots.page_table[slot, :count] = shared.pages\n",
        "",
    ),
    Mutation(
        "a running row locks its part of the tree",
        "backend/cache/radix.py",
        "            each.locks += 1\n",
        "            each.locks += each.parent is None\n",
        RADIX,
    ),
    Mutation(
        "what two sequences share is cut to whole pages",
        "backend/cache/radix.py",
        "common_prefix(child.key, tokens[done:]) // self.page_size * self.page_size",
        "common_prefix(child.key, tokens[done:])",
        RADIX,
    ),
    Mutation(
        "at least one token of a cached prompt is computed",
        "backend/scheduler/queue.py",
        "return len(self.tokens) - 1\n",
        "return len(self.tokens)\n",
    ),
    Mutation(
        "steps under way are settled before a row is retracted",
        "backend/scheduler/retraction.py",
        "if not self._settle_all():  # rows that end there may leave room enough",
        "if True:",
        (*TESTS, "tests/backend/scheduler/test_fuzz.py"),
    ),
    Mutation(
        "a retracted request keeps the output that it was told",
        "backend/scheduler/retraction.py",
        "request.tokens = self._slots.tokens[row, : self._slots.known[row]].copy()",
        "request.tokens = self._slots.tokens[row, : request.prompt_len].copy()",
    ),
    Mutation(
        "an end by length is known before the step is launched",
        "backend/scheduler/batching.py",
        " & (known < slots.limit[rows])",
        "",
    ),
    Mutation(
        "namespaces have trees of their own",
        "backend/cache/radix.py",
        "        root = self._roots.get(namespace)\n        return Node(",
        "        root = next(iter(self._roots.values()), None)\n        return Node(",
        RADIX,
    ),
    Mutation(
        "what a failed step computed never enters the tree",
        "backend/scheduler/running.py",
        "        slots.computed[batch.rows] = np.minimum(slots.computed[batch.rows], batch.starts)\n",
        "",
    ),
    Mutation(
        "an aborted request that waits leaves the queue",
        "backend/scheduler/loop.py",
        "            self.admission.waiting.remove(request)\n",
        "            pass\n",
        (*TESTS, "tests/backend/scheduler/test_fuzz.py"),
    ),
    Mutation(
        "random numbers depend on the token's position",
        "backend/scheduler/seeds.py",
        "hashed_seeds ^ (positions.astype(np.uint64) + np.uint64(1)) * GOLDEN",
        "hashed_seeds ^ (positions.astype(np.uint64) * np.uint64(0)) * GOLDEN",
        SAMPLER,
    ),
    Mutation(
        "cached tokens are told once, also after a retraction",
        "backend/scheduler/admission.py",
        "        if request.told_cached:\n            return\n",
        "",
    ),
    Mutation(
        "forced tokens of an answer that is over do not reach its row's next owner",
        "backend/scheduler/guided.py",
        "        self._jumped.discard(slot)  # an answer before may have ended with forced tokens\n",
        "",
        ("tests/backend/scheduler/test_guided.py",),
    ),
    Mutation(
        "a step whose rows follow grammars is settled before the next one is launched",
        "backend/scheduler/loop.py",
        "if self._launched and self._launched[-1][0].allowed is not None:",
        "if False:",
        ("tests/backend/scheduler/test_guided.py",),
    ),
    Mutation(
        "nobody gives way to a request whose grammar is still being compiled",
        "backend/scheduler/admission.py",
        "(each for each in found if each.guide is None or each.guide.compiled.done())",
        "iter(found)",
        ("tests/backend/scheduler/test_kinds_fuzz.py",),
    ),
    Mutation(
        "a running request gives way only to one of far higher priority",
        "backend/scheduler/retraction.py",
        "if waiting.priority - request.priority > threshold",
        "if waiting.priority - request.priority >= threshold",
    ),
    Mutation(
        "what a running row reads stays on the host too",
        "backend/cache/host_tree.py",
        "return not node.children_on_host and node.locks == 0 and len(node.host) > 0",
        "return not node.children_on_host and len(node.host) > 0",
        ("tests/backend/cache/test_host_tree.py",),
    ),
    Mutation(
        "what is on the device is closed under prefixes",
        "backend/cache/host_tree.py",
        "for each in reversed(list(descendants(node))):",
        "for each in ():",
        ("tests/backend/cache/test_host_tree.py",),
    ),
    Mutation(
        "memory lost while idle is found",
        "backend/scheduler/loop.py",
        "            self._mend()\n",
        "            pass\n",
    ),
)


def first_failure(mutation: Mutation, folder: Path) -> str | None:
    """The test that fails first with ``mutation`` applied below ``folder``; None when all pass."""
    path = folder / mutation.path
    source = path.read_text()
    if source.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.path}: to be found once, but {source.count(mutation.old)} times: {mutation.old!r}")
    path.write_text(source.replace(mutation.old, mutation.new))
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=1"]
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [*command, *mutation.tests], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    finally:
        path.write_text(source)
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    if run.returncode not in (0, 1) or (run.returncode == 1 and found is None):
        raise SystemExit(f"pytest ended with status {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return found[1] if found else None


def row(mutation: Mutation, failed: str | None) -> str:
    return f"| {mutation.guard} | `{mutation.path}` | {f'`{failed}`' if failed else '**none**'} |"


def write(rows: dict[str, str]) -> None:
    """Keep ``rows``, by guard, in the page."""
    before = PAGE.read_text().splitlines() if PAGE.exists() else []
    told = {line.split(" | ")[0].removeprefix("| "): line for line in before if line.startswith("| ")}
    lines = [(told | rows).get(mutation.guard, row(mutation, "not tried yet")) for mutation in MUTATIONS]
    title = "# Guards of the core, and the tests that notice when one is missing\n"
    made = "Made by `python -m tests.mutations --write`.\n"
    PAGE.write_text(
        "\n".join([title, made, "| guard that is removed | in | test that fails |", "|---|---|---|", *lines, ""])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="try guards whose name has these words")
    parser.add_argument("--write", action="store_true", help=f"keep the list in {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    rows, survivors = {}, 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as name:
        folder = Path(name)
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        for mutation in (each for each in MUTATIONS if args.only in each.guard):
            failed = first_failure(mutation, folder)
            survivors += failed is None
            rows[mutation.guard] = row(mutation, failed)
            print(rows[mutation.guard], flush=True)
    if args.write:
        write(rows)
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
