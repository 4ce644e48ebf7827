"""nginx/warmlane.conf in the real nginx: what reaches the routers, what stays outside, what is not held back."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.nginx_server import SHIPPED, nginx_argv, start_nginx
from tests.e2e.processes import Process, Processes, free_port

pytestmark = pytest.mark.program("nginx", "nginx-light")


@pytest.fixture(scope="module")
def nginx(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Process:
    """nginx before one live upstream and one address where nobody listens."""
    upstream = processes.python("stand-in", "tests.e2e.stand_in", port=free_port())
    upstream.wait_ready("/health", 30)
    hosts = [f"127.0.0.1:{free_port()}", upstream.url.removeprefix("http://")]
    return start_nginx(processes, tmp_path_factory.mktemp("nginx"), free_port(), hosts)


@pytest.fixture
def client(nginx: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=nginx.url, timeout=20, trust_env=False) as found:
        yield found


def test_nginx_accepts_the_shipped_file(tmp_path: Path) -> None:
    done = subprocess.run([*nginx_argv(tmp_path, SHIPPED), "-t"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_requests_arrive_with_forwarding_headers_and_an_id(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions?x=1", content=b"{}", headers={"X-Forwarded-For": "203.0.113.9"}).json()
    headers = answer["headers"]
    assert answer["path"] == "/v1/chat/completions?x=1"
    assert headers["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == f"127.0.0.1:{client.base_url.port}"
    assert headers["x-forwarded-port"] == str(client.base_url.port)
    assert len(headers["x-request-id"]) == 32


def test_the_clients_own_request_id_stays(client: httpx.Client) -> None:
    answer = client.post("/generate", content=b"{}", headers={"X-Request-Id": "mine-1"}).json()
    assert answer["headers"]["x-request-id"] == "mine-1"


def test_a_long_prompt_passes(client: httpx.Client) -> None:
    assert client.post("/v1/completions", content=b"x" * 3_000_000).json()["body"] == 3_000_000


def test_no_request_fails_while_one_router_is_away(client: httpx.Client) -> None:
    assert [client.post("/generate", content=b"{}").status_code for _ in range(20)] == [200] * 20


def test_a_stream_is_not_held_back(client: httpx.Client) -> None:
    with client.stream("GET", "/v1/stream") as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"data: first\n\n"  # the upstream waits for the release that comes now
        client.post("/v1/release")
        assert b"".join(chunks) == b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "path",
    [
        "/workers",
        "/workers/x",
        "/add_worker",
        "/remove_worker?url=x",
        "/list_workers",
        "/flush_cache",
        "/abort_request",
        "/get_load",
        "/server_info",
        "/get_server_info",
        "/metrics",
        "/explain",
        "/explain/1",
        "/v1/loads",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "//metrics",
        "/v1//loads",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_inside_paths_are_closed(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, httpx.URL(str(client.base_url), raw_path=path.encode()))
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/completions", "/v1/models", "/generate", "/health", "/readiness", "/model_info"],
)
def test_client_paths_are_open(client: httpx.Client, path: str) -> None:
    assert client.get(path).json()["path"] == path
