"""The real nginx with nginx/warmlane.conf: only ports and folders differ from what ships."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.processes import ROOT, Process, Processes
from tests.programs import program

SHIPPED = ROOT / "nginx" / "warmlane.conf"
MAIN = """\
{user}daemon off;
pid {folder}/nginx.pid;
error_log stderr info;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {included};
}}
"""


def nginx_argv(folder: Path, included: Path) -> list[str]:
    """The command that runs nginx, without root, on ``included`` alone."""
    main = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""  # else root's workers change to a user that cannot write here
    main.write_text(MAIN.format(folder=folder, included=included, user=user))
    return [program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(main)]


def start_nginx(processes: Processes, folder: Path, port: int, routers: Sequence[str]) -> Process:
    """nginx on ``port`` in front of ``routers`` (HOST:PORT)."""
    text = SHIPPED.read_text()
    server = re.compile(r"^    server 127\.0\.0\.1:\d+(.*;)\n", re.MULTILINE)
    options = server.findall(text)[0]
    text = server.sub("", text)
    text = text.replace("least_conn;\n", "least_conn;\n" + "".join(f"    server {host}{options}\n" for host in routers))
    text = text.replace("listen 8000;", f"listen 127.0.0.1:{port};")
    included = folder / "warmlane.conf"
    included.write_text(text)
    process = processes.start("nginx", nginx_argv(folder, included), f"http://127.0.0.1:{port}")
    process.wait_ready("/health", 20)
    return process
