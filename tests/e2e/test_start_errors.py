"""A start that cannot succeed: one line that says why, exit status 2 or 1, never a traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT

SERVER = "backend.launch_server"
ROUTER = "router.launch_router"


def start(module: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *flags], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    ("module", "flags", "words"),
    [
        (SERVER, ["--tp", "4"], ["--tp 4", "not supported yet"]),
        (SERVER, ["--prot", "1"], ["unknown flag --prot", "--port"]),
        (SERVER, ["--port", "99999"], ["--port", "99999"]),
        (ROUTER, ["--policy", "nope"], ["--policy", "cache_aware", "'nope'"]),
        (ROUTER, ["--config", "/nowhere.yaml"], ["/nowhere.yaml"]),
        (ROUTER, ["--router-hosts"], ["--router-hosts", "HOST:PORT"]),
        (ROUTER, ["--model-path", ""], ["--model-path", "''"]),
        (SERVER, ["--model-path="], ["--model-path", "''"]),
    ],
)
def test_a_wrong_flag_stops_the_start(module: str, flags: list[str], words: list[str]) -> None:
    done = start(module, *flags)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("module", [SERVER, ROUTER])
@pytest.mark.parametrize("flag", ["--model-path", "--chat-template"])
def test_a_missing_file_is_named(module: str, flag: str) -> None:
    """The router without hosts, too: its backends could not start."""
    done = start(module, flag, "/nowhere/model")
    assert done.returncode == 1
    assert "/nowhere/model" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("module", [SERVER, ROUTER])
def test_a_port_in_use_is_named(module: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        hosts = ["--router-hosts", "127.0.0.1:9"] if module == ROUTER else []
        done = start(module, "--host", "127.0.0.1", "--port", str(port), *hosts)
    assert done.returncode != 0
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_missing_file_of_workers_is_said(workers: str) -> None:
    done = start(ROUTER, "--workers-file", "/nowhere.yaml", "--host", "127.0.0.1", "--port", "0", "--workers", workers)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["launch_router: error: /nowhere.yaml cannot be read: No such file or directory"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_way_to_a_cluster_is_said(workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    flags = ("--service-discovery", "--selector", "app=llm", "--host", "127.0.0.1", "--port", "0")
    done = start(ROUTER, *flags, "--workers", workers)
    assert done.returncode == 1
    assert "--service-discovery found no way to a cluster" in done.stderr
    assert "Traceback" not in done.stderr


BLOCKING_MODULE = """
import os
os.write(1, b"importing")
while True:
    os.read(0, 1)
"""


@pytest.mark.parametrize("module", [SERVER, ROUTER])
@pytest.mark.parametrize("library", ["yaml", "aiohttp", "tokenizers"])
def test_ctrl_c_while_libraries_are_imported(module: str, library: str, tmp_path: Path) -> None:
    """The library's import never ends, so the signal surely comes within it."""
    (tmp_path / f"{library}.py").write_text(BLOCKING_MODULE)
    program = f"from {module} import main; main()"  # as the console script does
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(9) == b"importing"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, b"")
