"""``launch_server`` as a process, over the fake scheduler: it starts, stops and fails cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.backend.fake_scheduler import DIE_TOKEN, SILENT_TOKEN, STUCK_TOKEN

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 30


class Launched:
    """A running server and its children."""

    def __init__(self, temp: Path, *flags: str) -> None:
        environment = {**os.environ, "TMPDIR": str(temp)}
        self.temp = temp
        flags = flags if "--port" in flags else (*flags, "--port", "0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.backend.fake_server", *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = ""

    def wait_ready(self) -> None:
        line = self.process.stdout.readline()
        assert line.startswith("warmlane backend ready on http://"), line + self.process.stderr.read()
        self.url = line.split()[4].rstrip(":")

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[object]:
    started = []

    def start(*flags: str, ready: bool = True) -> Launched:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        server = Launched(folder, *flags)
        started.append(server)
        if ready:
            server.wait_ready()
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + SECONDS
    while any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.01)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def connect_while_busy(server: Launched, count: int) -> None:
    """Each connection finds room at once; one without would be asked for anew after a whole second."""
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    server.process.send_signal(signal.SIGSTOP)
    try:
        crowd = [socket.create_connection(address, timeout=0.9) for _ in range(count)]
    finally:
        server.process.send_signal(signal.SIGCONT)
    for connection in crowd:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_when_asked(launch, number: signal.Signals) -> None:
    server = launch("--served-model-name", "echo")
    answer = httpx.post(f"{server.url}/generate", json={"text": "hi", "sampling_params": {"max_new_tokens": 2}})
    assert answer.json()["meta_info"]["completion_tokens"] == 2
    assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"] == "echo"
    connect_while_busy(server, 300)
    children = server.children()
    assert children
    sockets = list(server.temp.glob("warmlane-*"))
    assert [path.stat().st_mode & 0o777 for path in sockets] == [0o700]
    server.process.send_signal(number)
    code, _, err = server.finish()
    assert (code, err) == (0, "")
    wait_until_gone(children)
    assert list(server.temp.iterdir()) == []


def test_running_requests_keep_the_server_up_and_new_ones_are_refused(launch) -> None:
    server = launch()
    body = {"input_ids": [20, STUCK_TOKEN], "stream": True}
    with (
        httpx.Client(base_url=server.url, timeout=SECONDS) as client,
        httpx.Client(base_url=server.url, timeout=SECONDS) as other,
        client.stream("POST", "/generate", json=body) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + SECONDS
        while other.get("/health").status_code == 200:
            assert time.monotonic() < deadline
        refused = other.post("/generate", json={"text": "hi"})
        assert refused.status_code == 503
        assert "stopping" in refused.text
        assert server.process.poll() is None
    assert server.finish()[0] == 0  # the client left, so nothing runs any more


def test_a_second_ctrl_c_does_not_wait_for_running_requests(launch) -> None:
    server = launch()
    body = {"input_ids": [20, STUCK_TOKEN], "stream": True}
    with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=SECONDS) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + SECONDS
        while httpx.get(f"{server.url}/health").status_code == 200:
            assert time.monotonic() < deadline
        server.process.send_signal(signal.SIGINT)
        assert "data: [DONE]" in list(lines)
    assert server.finish()[0] == 0


def test_killing_the_server_takes_the_scheduler_with_it(launch) -> None:
    server = launch()
    children = server.children()
    server.process.kill()
    wait_until_gone(children)
    assert list(server.temp.iterdir()) == []


def test_a_scheduler_that_dies_fails_its_requests_and_without_restarts_the_server(launch) -> None:
    server = launch("--max-scheduler-restarts", "0")
    results = {}

    def ask(name: str, body: dict) -> None:
        try:
            results[name] = httpx.post(f"{server.url}/generate", json=body, timeout=SECONDS)
        except httpx.HTTPError as error:
            results[name] = error

    waiting = {"before": {"input_ids": [20, SILENT_TOKEN]}, "after": {"input_ids": [20, STUCK_TOKEN]}}
    waiting["stream"] = {"input_ids": [20, STUCK_TOKEN], "stream": True}
    threads = [threading.Thread(target=ask, args=item) for item in waiting.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SECONDS
    while httpx.get(f"{server.url}/get_load").json()[0]["num_reqs"] < 3:
        assert time.monotonic() < deadline
    ask("killer", {"input_ids": [DIE_TOKEN]})
    for thread in threads:
        thread.join()
    assert results["before"].status_code == results["killer"].status_code == 503
    assert "exit code 3" in results["before"].json()["error"]["message"]
    assert isinstance(results["after"], httpx.RemoteProtocolError)  # cut: it cannot be taken for a whole answer
    assert '"retryable":true' in results["stream"].text
    code, _, err = server.finish()
    assert code == 1
    assert "ended unexpectedly (exit code 3)" in err
    assert "Traceback" not in err
    assert list(server.temp.iterdir()) == []


def stream_until_cut(server: Launched, begun: threading.Event, lines: list[str]) -> None:
    body = {"input_ids": [20, STUCK_TOKEN], "stream": True}
    with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=SECONDS) as response:
        for line in response.iter_lines():
            lines.append(line)
            begun.set()


def test_a_killed_scheduler_fails_its_requests_in_the_stream_too_and_later_ones_are_served(launch) -> None:
    server = launch()
    begun, lines = threading.Event(), []
    thread = threading.Thread(target=stream_until_cut, args=(server, begun, lines))
    thread.start()
    assert begun.wait(SECONDS)
    (killed,) = schedulers(server)
    os.kill(killed, signal.SIGKILL)
    thread.join()
    assert '"message":"The scheduler process ended unexpectedly (killed by SIGKILL)."' in "".join(lines)
    assert lines[-2] == "data: [DONE]"
    answers = []
    deadline = time.monotonic() + SECONDS
    while not answers or answers[-1].status_code != 200:
        assert time.monotonic() < deadline, answers[-1].text
        answers.append(
            httpx.post(f"{server.url}/generate", json={"text": "hi", "sampling_params": {"max_new_tokens": 2}})
        )
    refused = answers[:-1]
    assert all(answer.status_code == 503 and "Retry-After" in answer.headers for answer in refused)
    assert answers[-1].json()["meta_info"]["completion_tokens"] == 2
    assert schedulers(server) != [killed]
    metrics = httpx.get(f"{server.url}/metrics").text
    restarts = [line for line in metrics.splitlines() if line.startswith("sglang:scheduler_restarts_total{")]
    assert [line.split()[-1] for line in restarts] == ["1.0"]
    server.process.send_signal(signal.SIGTERM)
    code, _, err = server.finish()
    assert code == 0
    assert "killed by SIGKILL" in err
    assert "Traceback" not in err
    assert list(server.temp.iterdir()) == []


def test_a_scheduler_that_dies_as_it_starts_again_is_started_once_more(launch) -> None:
    server = launch("--max-scheduler-restarts", "9")
    killed: list[int] = []
    deadline = time.monotonic() + SECONDS
    while len(killed) < 2:  # the second has just begun: it reads its modules, which takes long
        assert time.monotonic() < deadline
        for pid in schedulers(server):
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    answer = None
    while answer is None or answer.status_code == 503:
        assert time.monotonic() < deadline
        answer = httpx.post(
            f"{server.url}/generate", json={"text": "hi", "sampling_params": {"max_new_tokens": 2}}, timeout=SECONDS
        )
    assert answer.status_code == 200
    server.process.send_signal(signal.SIGTERM)
    code, _, err = server.finish()
    assert code == 0
    assert "could not start again" in err
    assert "Traceback" not in err
    assert list(server.temp.iterdir()) == []


def test_a_scheduler_that_dies_again_and_again_ends_the_server(launch) -> None:
    server = launch("--max-scheduler-restarts", "1")
    deadline = time.monotonic() + SECONDS
    while server.process.poll() is None:
        assert time.monotonic() < deadline
        try:
            httpx.post(f"{server.url}/generate", json={"input_ids": [DIE_TOKEN]}, timeout=SECONDS)
        except httpx.TransportError:
            continue
    code, _, err = server.finish()
    assert code == 1
    assert err.count("ended unexpectedly (exit code 3)") == 2
    assert "not started again (--max-scheduler-restarts)" in err
    assert list(server.temp.iterdir()) == []


def schedulers(server: Launched) -> list[int]:
    """The children that are schedulers, and not helpers of multiprocessing."""
    found = []
    for pid in server.children():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--model-path", "/no/such/model"], 1, "/no/such/model"),
        (["--no-such-flag"], 2, "--no-such-flag"),
        (["--tp", "4"], 2, "--tp 4 is not supported yet"),
        (["--chat-template", "/no/such/template"], 1, "/no/such/template"),
        (["--host", "203.0.113.77"], 1, "203.0.113.77"),
        (["--fake-target", "run_failing_scheduler"], 1, "the GPU is full: 1 GiB is missing"),
        (["--fake-target", "run_vanishing_scheduler"], 1, "exit code 5"),
    ],
)
def test_a_failure_to_start_is_one_line(launch, flags: list[str], code: int, told: str) -> None:
    server = launch(*flags, ready=False)
    status, out, err = server.finish()
    assert (status, out) == (code, "")
    assert told in err
    assert err.startswith("launch_server: error: ")
    assert err.count("\n") == 1, err
    assert list(server.temp.iterdir()) == []


def test_a_port_in_use(launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = launch("--port", str(taken.getsockname()[1]), ready=False)
        status, _, err = server.finish()
    assert status == 1
    assert "port" in err
    assert err.count("\n") == 1


def test_stopping_while_it_starts(launch) -> None:
    server = launch("--fake-target", "run_sleeping_scheduler", ready=False)
    deadline = time.monotonic() + SECONDS
    while not server.children():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = server.children()
    server.process.send_signal(signal.SIGTERM)
    assert server.finish()[0] == 0
    wait_until_gone(children)


def test_ctrl_c_in_the_whole_group_while_the_scheduler_starts(launch) -> None:
    server = launch("--fake-target", "run_sleeping_scheduler", ready=False)
    deadline = time.monotonic() + SECONDS
    while not (children := server.children()):
        assert time.monotonic() < deadline
    for pid in [*children, server.process.pid]:
        os.kill(pid, signal.SIGINT)
    assert server.finish()[::2] == (0, "")
    wait_until_gone(children)
