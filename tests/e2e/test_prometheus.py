"""configs/prometheus.yml in the real Prometheus."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import Processes, free_port, wait_until
from tests.e2e.prometheus_server import SCRAPED_SECONDS, SHIPPED, query, start_prometheus, targets_of
from tests.programs import program

pytestmark = pytest.mark.program("prometheus", "prometheus")


@pytest.mark.program("promtool", "prometheus")
def test_promtool_accepts_the_shipped_file() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "config", str(SHIPPED)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_target_that_answers_is_up_and_one_that_does_not_is_down(processes: Processes, tmp_path: Path) -> None:
    upstream = processes.python("metrics", "tests.e2e.stand_in", port=free_port())
    upstream.wait_ready("/health", 30)
    live, dead = upstream.url.removeprefix("http://"), f"127.0.0.1:{free_port()}"
    prometheus = start_prometheus(processes, tmp_path, {"warmlane-router": [live], "warmlane-backend": [dead]})
    wait_until(lambda: targets_of(prometheus) == {live: "up", dead: "down"}, SCRAPED_SECONDS, "both to be scraped")
    assert query(prometheus, 'stand_in_requests_total{job="warmlane-router"}')
