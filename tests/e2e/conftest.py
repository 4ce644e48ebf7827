"""Fixtures of real processes, shared by the whole run: two backends and a router on the default model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.processes import Process, Processes, free_port

START_SECONDS = 110  # a backend loads the model
PROCESSES = pytest.StashKey[Processes]()
BACKEND_FLAGS = ("--cpu-threads", "1", "--max-total-tokens", "16384")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the end of every process's log."""
    report = yield
    started = item.config.stash.get(PROCESSES, None)
    if report.failed and started is not None:
        report.sections += [(f"log of {process.name}", process.log()) for process in started.all]
    return report


@pytest.fixture(scope="session")
def processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Starts programs; they are stopped at the end of the run."""
    started = Processes(tmp_path_factory.mktemp("logs"))
    request.config.stash[PROCESSES] = started
    yield started
    started.stop_all()


@pytest.fixture(scope="session")
def backends(processes: Processes) -> list[Process]:
    """Two backends with the default model."""
    found = [
        processes.python(f"backend-{index}", "backend.launch_server", *BACKEND_FLAGS, port=free_port())
        for index in range(2)
    ]
    for process in found:
        process.wait_ready("/health", START_SECONDS)
    return found


@pytest.fixture(scope="session")
def router(processes: Processes, backends: list[Process]) -> Process:
    """A cache-aware router in front of the two backends."""
    hosts = [process.url.removeprefix("http://") for process in backends]
    started = processes.python(
        "router",
        "router.launch_router",
        "--policy",
        "cache_aware",
        "--router-hosts",
        *hosts,
        port=free_port(),
    )
    started.wait_ready("/readiness", START_SECONDS)
    return started
