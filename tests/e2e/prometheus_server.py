"""The real Prometheus with configs/prometheus.yml: only targets and the interval differ from what ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.processes import ROOT, Process, Processes, free_port, wait_until
from tests.programs import program

SHIPPED = ROOT / "configs" / "prometheus.yml"
SCRAPED_SECONDS = 60


def start_prometheus(processes: Processes, folder: Path, targets: Mapping[str, Sequence[str]]) -> Process:
    """Prometheus that scrapes ``targets`` (HOST:PORT) of each job of the shipped file every second."""
    config = yaml.safe_load(SHIPPED.read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    argv = [
        program("prometheus"),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = processes.start("prometheus", argv, f"http://127.0.0.1:{port}")
    process.wait_ready("/-/ready", 60)
    return process


def targets_of(prometheus: Process) -> dict[str, str]:
    """State of each target by HOST:PORT: up, down or unknown."""
    answer = httpx.get(prometheus.url + "/api/v1/targets", timeout=10, trust_env=False).json()
    return {target["labels"]["instance"]: target["health"] for target in answer["data"]["activeTargets"]}


def query(prometheus: Process, expression: str) -> list[dict[str, Any]]:
    """The samples of ``expression`` now: each has ``metric`` and ``value``."""
    answer = httpx.get(
        prometheus.url + "/api/v1/query", params={"query": expression}, timeout=10, trust_env=False
    ).json()
    return list(answer["data"]["result"])


def wait_scraped(prometheus: Process) -> None:
    """Wait until every target is up."""
    wait_until(
        lambda: bool(found := targets_of(prometheus)) and set(found.values()) == {"up"},
        SCRAPED_SECONDS,
        f"targets to be up, now {targets_of(prometheus)}",
    )
