"""README's GPU tables are those of the kept report."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu_table

ROOT = Path(__file__).parents[2]
REPORT = json.loads((ROOT / "benchmarks" / "results" / "gpu-nvidia-h200.json").read_text())


@pytest.mark.parametrize("table", [gpu_table.peers, gpu_table.variants, gpu_table.gaps, gpu_table.first_tokens])
def test_readme_has_the_reports_tables(table):
    assert table(REPORT) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_ratio_below_one_is_not_shown_as_one():
    assert [gpu_table.ratio(value) for value in (0.9966, 0.994, 1.0, 1.004)] == ["0.997", "0.99", "1.00", "1.00"]
