"""The README's curl lines and its Python example, run as they stand against the fleet of this test run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, Process

README = (ROOT / "README.md").read_text()
CURL_LINES = list(dict.fromkeys(re.findall(r"^\| .* \| `(curl .*)` \|$", README, flags=re.MULTILINE)))
PYTHON = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run_curl(line: str, router: Process, backend: Process) -> subprocess.CompletedProcess[str]:
    line = line.replace("http://127.0.0.1:8080", router.url).replace("http://127.0.0.1:30000", backend.url)
    script = line.replace("curl ", "curl --silent --show-error --fail --max-time 100 ", 1)
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=110)


def test_the_tables_have_lines() -> None:
    assert len(CURL_LINES) > 20


@pytest.mark.program("curl", "curl")
@pytest.mark.parametrize("line", CURL_LINES)
def test_curl_line(line: str, router: Process, backends: list[Process]) -> None:
    done = run_curl(line, router, backends[0])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.program("curl", "curl")
def test_the_first_curl_names_paris(router: Process, backends: list[Process]) -> None:
    block = re.search(r"```sh\n(curl .*?)```", README, flags=re.DOTALL)
    assert block is not None
    assert "Paris" in run_curl(block[1], router, backends[0]).stdout


def test_the_python_example_runs(tmp_path: Path) -> None:
    assert PYTHON is not None
    script = tmp_path / "example.py"
    script.write_text(PYTHON[1])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=110, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "four" in done.stdout
