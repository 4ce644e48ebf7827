"""The routers that the benchmark compares: how each one is installed and started."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.processes import free_port

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / ".peers"
COMPILED = "warmlane compiled"
Start = Callable[[int, Sequence[int]], list[str]]

NGINX = """
worker_processes 1; daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 1000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream fleet {{ {servers} keepalive 512; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://fleet; proxy_buffering off; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Peer:
    """``command(port, backend ports)`` starts it in the foreground."""

    name: str
    command: Start
    version: str = ""


def ours(policy: str = "cache_aware", workers: int = 1) -> Peer:
    def command(port: int, backends: Sequence[int]) -> list[str]:
        hosts = [f"127.0.0.1:{backend}" for backend in backends]
        more = ["--workers", str(workers)] if workers > 1 else []
        return [
            sys.executable, "-m", "router.launch_router", "--host", "127.0.0.1", "--port", str(port),
            "--policy", policy, "--log-level", "warning", *more, "--router-hosts", *hosts,
        ]  # fmt: skip

    name = "warmlane" if workers == 1 else f"warmlane x{workers}"
    return Peer(name, command, importlib.metadata.version("warmlane"))


def compiled() -> Peer:
    """Ours as machine code. Raises ``SystemExit`` unless ``make compiled`` was run on these sources."""
    if subprocess.run([sys.executable, str(ROOT / ".ci" / "compile.py"), "--check"], check=False).returncode:
        raise SystemExit("build/compiled is not of these sources: run make compiled first")
    plain = ours()

    def command(port: int, backends: Sequence[int]) -> list[str]:
        return ["env", f"PYTHONPATH={ROOT / 'build' / 'compiled'}", "PYTHONSAFEPATH=1", *plain.command(port, backends)]

    return Peer(COMPILED, command, plain.version)


def nginx() -> Peer:
    def command(port: int, backends: Sequence[int]) -> list[str]:
        folder = Path(mkdtemp(prefix="warmlane-nginx-"))
        servers = "".join(f"server 127.0.0.1:{backend};" for backend in backends)
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, servers=servers, port=port))
        return ["nginx", "-c", str(config), "-p", str(folder)]

    told = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return Peer("nginx", command, told.strip().rpartition("/")[2])


def sglang_router() -> Peer:
    return _installed("sglang-router", "0.3.2", "sglang_router.launch_router")


def vllm_router() -> Peer:
    return _installed("vllm-router", "0.1.17", "vllm_router.launch_router")


def smg() -> Peer:
    return _installed("smg", "1.13.0", "smg.launch_router")


def _installed(package: str, version: str, module: str) -> Peer:
    python = _venv(f"{package}=={version}")
    return Peer(package, lambda port, backends: _launch(python, module, port, backends), version)


def _launch(python: str, module: str, port: int, backends: Sequence[int]) -> list[str]:
    urls = [f"http://127.0.0.1:{backend}" for backend in backends]
    return [
        python, "-m", module, "--host", "127.0.0.1", "--port", str(port), "--policy", "cache_aware",
        "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()), "--log-level", "error",
        "--worker-urls", *urls,
    ]  # fmt: skip


def _venv(requirement: str) -> str:
    """The interpreter of the requirement's own environment, made at first use."""
    folder = PEERS / requirement.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / ".done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", requirement], check=True)
        (folder / ".done").touch()
    return str(python)
