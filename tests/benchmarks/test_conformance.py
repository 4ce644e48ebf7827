"""The conformance command: what clients tell becomes rows, reasons and a page; what goes wrong is an outcome, too."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.conformance import __main__ as command
from benchmarks.conformance import lanes
from benchmarks.conformance.clients.cases import MARK, Skip, case, note, version
from benchmarks.conformance.data import prepare
from benchmarks.conformance.environments import Environment, Here
from benchmarks.conformance.outcome import Case, Outcome
from benchmarks.conformance.page import page
from benchmarks.conformance.store import merged
from benchmarks.conformance.suites import SUITES, Suite


def told(capsys) -> Outcome:
    outcome = Outcome("client", "suite", "backend")
    outcome.read(["the client's own words", *capsys.readouterr().out.splitlines()])
    return outcome


def test_a_scripts_words_become_an_outcome(capsys):
    def fails():
        raise AssertionError("Paris, got Rome")

    def skips():
        raise Skip("no such thing here")

    version("1.2")
    note("27 tokens/s")
    for name, run in {"good": lambda: None, "bad": fails, "none": skips}.items():
        case(name, run)
    outcome = told(capsys)
    assert (outcome.version, outcome.notes) == ("1.2", ["27 tokens/s"])
    assert [(each.name, each.state) for each in outcome.cases] == [
        ("good", "passed"),
        ("bad", "failed"),
        ("none", "skipped"),
    ]
    assert outcome.cases[1].reason == "AssertionError: Paris, got Rome"
    assert not outcome.passed


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("import sys; print('no module called x'); sys.exit(3)", "ended with status 3: no module called x"),
        ("import time; time.sleep(60)", "not at its end after 1 seconds"),
        (f'print(\'{MARK}\' + \'{{"case": "a", "state": "passed"}}\')', ""),
    ],
)
def test_a_client_that_fails_or_hangs_is_an_outcome(script, trouble, tmp_path, monkeypatch):
    (tmp_path / "client.py").write_text(script)
    monkeypatch.setattr("benchmarks.conformance.suites.CLIENTS", tmp_path)
    suite = Suite("c", "s", "client", Here(), 1 if "time" in script else 30)
    outcome = lanes.run(lanes.Job(suite, "backend"), Here().python(), "http://x", tmp_path)
    assert outcome.trouble == trouble
    assert outcome.passed == (trouble == "")


def test_every_suite_has_its_script_and_its_own_row():
    assert [suite.path for suite in SUITES if not suite.path.is_file()] == []
    assert len({(suite.client, suite.words) for suite in SUITES}) == len(SUITES)
    assert all(suite.words for suite in SUITES if sum(suite.client == each.client for each in SUITES) > 1)


def test_suites_run_side_by_side_the_longest_first_and_parts_are_one_row(tmp_path, monkeypatch):
    script = "import json, sys\nsys.stdout.write('%s' + json.dumps({'case': sys.argv[-1], 'state': 'passed'}))"
    (tmp_path / "client.py").write_text(script % MARK)
    monkeypatch.setattr("benchmarks.conformance.suites.CLIENTS", tmp_path)
    monkeypatch.setattr(lanes, "servers", lambda threads: nullcontext({"backend": "b", "router": "r"}))
    missing = Environment("none", packages=("x",))
    suites = [Suite("c", "s", "client", Here(), seconds, words=(str(seconds),)) for seconds in (20, 30)]
    jobs = [lanes.Job(each, "backend") for each in [*suites, Suite("d", "s", "client", missing, 40)]]
    heard = []
    found = lanes.run_all(jobs, {Here(): Here().python(), missing: "not installed: x"}, tmp_path, 1, heard.append)
    assert [outcome.client for outcome in heard] == ["d", "c", "c"]
    rows = lanes.in_rows(jobs, found)
    assert [(each.client, each.trouble, [case.name for case in each.cases]) for each in rows] == [
        ("c", "", ["20", "30"]),
        ("d", "not installed: x", []),
    ]


def test_rows_that_are_not_run_again_stay(tmp_path):
    path = tmp_path / "results.json"
    first = [Outcome("a", "s", "backend", "1", cases=[Case("x", "failed", "why")]), Outcome("b", "s", "router", "1")]
    merged(first, path)
    second = merged([Outcome("a", "s", "backend", "2", cases=[Case("x", "passed")])], path)
    assert [(each.client, each.version) for each in second] == [("a", "2"), ("b", "1")]
    assert merged([], path) == second


def test_the_page_counts_and_explains():
    cases = [
        Case("test_long_prompt", "failed", "KeyError:\n'choices'"),
        Case("y", "passed"),
        Case("z", "skipped", "s"),
    ]
    text = page([Outcome("c", "s", "backend", "1", 5.0, cases, ["a figure"])])
    assert "| c | s | 1 | backend | 3 | 1 | 1 | 1 | 5 |" in text
    assert "KeyError: 'choices' (why: 8,000 tokens" in text
    assert "- c, backend: a figure" in text


def test_questions_come_from_a_folder_or_from_the_samples(tmp_path):
    given, folder = tmp_path / "given", tmp_path / "folder"
    given.mkdir()
    folder.mkdir()
    assert "our own sample" in prepare(None, folder)
    rows = [json.loads(line) for line in (folder / "hellaswag.jsonl").read_text().splitlines()]
    assert all(len(row["endings"]) == 4 and 0 <= row["label"] < 4 for row in rows)
    (given / "hellaswag_x.jsonl").write_text("{}\n" * 40)
    with pytest.raises(FileNotFoundError, match="gsm8k"):
        prepare(given, folder)
    (given / "gsm8k.jsonl").write_text("{}\n")
    assert prepare(given, folder) == "hellaswag: 16 of hellaswag_x.jsonl, gsm8k: 1 of gsm8k.jsonl"


def test_scripts_import_nothing_of_ours():
    clients = Path(command.__file__).parent / "clients"
    ours = ("import backend", "import router", "from backend", "from router", "from benchmarks")
    assert [path.name for path in clients.glob("*.py") if any(words in path.read_text() for words in ours)] == []
