"""README's GPU tables are those of the kept report."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu_report, gpu_table

ROOT = Path(__file__).parents[2]
REPORT = json.loads((ROOT / "benchmarks" / "results" / "gpu-nvidia-h200.json").read_text())


@pytest.mark.parametrize("table", [gpu_table.peers, gpu_table.variants, gpu_table.gaps, gpu_table.first_tokens])
def test_readme_has_the_reports_tables(table):
    assert table(REPORT) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_ratio_below_one_is_not_shown_as_one():
    assert [gpu_table.ratio(value) for value in (0.9966, 0.994, 1.0, 1.004)] == ["0.997", "0.99", "1.00", "1.00"]


def test_calls_on_one_machine_continue_a_report_and_others_begin_one():
    machine = {"gpu": "NVIDIA H200", "torch": "2.11.0", "date": "2026-11-22"}
    before = {"machine": machine | {"date": "2026-11-21"}, "tests": [{"said": "2 passed"}], "models": {"small": {}}}
    assert gpu_report.continued(before, machine) == before | {"machine": machine}
    fresh = {"tests": [], "models": {}}
    for other in (machine | {"torch": "2.12.0"}, machine | {"gpu": "NVIDIA H100"}):
        assert gpu_report.continued(before, other) == {"machine": other} | fresh
    assert gpu_report.continued(None, machine) == {"machine": machine} | fresh


def test_a_test_run_says_when_it_was_and_what_came_out(tmp_path):
    path = tmp_path / "test_one.py"
    path.write_text("def test_one():\n    pass\n\n\ndef test_two():\n    raise ValueError\n")
    (run,) = gpu_report.tests([str(path)])
    assert (run["of"], run["failed"]) == ([str(path)], True)
    assert run["said"].startswith("1 failed, 1 passed in ")
    assert run["at"].endswith("Z")
