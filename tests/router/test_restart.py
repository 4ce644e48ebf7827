"""A backend that restarts at its address is noticed: what it had cached is forgotten, and its breaker asks at once."""

from __future__ import annotations

import socket

import pytest

from router.config import HealthSettings, Timeouts
from router.fleet.health import HealthMonitor
from router.fleet.vitals import Vital, Vitals
from router.fleet.worker import Health, Worker, WorkerSpec
from router.upstream import Upstream
from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend


async def prefix_nodes(fleet) -> float:
    return fleet.router.policy.stats()["prefix_tree_nodes"]


async def test_a_backend_that_was_gone_starts_with_an_empty_tree():
    settings = {"health_failure_threshold": 1, "health_success_threshold": 1, "retry_max_retries": 1}
    async with running(FakeBackend(), **settings) as fleet:
        (worker,) = fleet.router.registry.all()
        empty = await prefix_nodes(fleet)
        async with fleet.client.post("/v1/chat/completions", json=chat("hello " * 100)) as answer:
            assert answer.status == 200
        assert await prefix_nodes(fleet) > empty
        await fleet.backends[0].stop()
        async with fleet.client.post("/v1/chat/completions", json=chat("bye")) as answer:
            assert answer.status in (502, 503)
        await until(lambda: worker.health is Health.UNHEALTHY)
        await fleet.backends[0].start()
        await until(lambda: worker.health is Health.HEALTHY)
        assert await prefix_nodes(fleet) == empty
        assert fleet.metric("warmlane_worker_restarts_total") == 1


@pytest.mark.parametrize(
    ("address", "vital"),
    [("http://127.0.0.1:{free}", Vital.GONE), ("http://localhost:{free}", Vital.GONE),
     ("https://127.0.0.1:{taken}", Vital.UNWELL), ("http://no-such-host.invalid:1", Vital.UNWELL)],
    ids=["refused", "refused at every address", "no TLS there", "no such name"],
)  # fmt: skip
async def test_only_a_refused_connection_shows_that_the_process_is_gone(address, vital):
    async with running(FakeBackend(), FakeBackend()) as fleet:
        await fleet.backends[1].stop()
        taken, free = (backend.port for backend in fleet.backends)
        worker = Worker(WorkerSpec(url=address.format(taken=taken, free=free)))
        upstream = Upstream(fleet.router.config.timeouts)
        try:
            assert await Vitals(upstream).check(worker, "/health", 5.0) is vital
            assert worker.problem.startswith("connect: ")
        finally:
            await upstream.close()


async def test_no_connection_in_time_does_not_make_prefixes_forgotten():
    """A connect timeout below the checks' own: whoever could not answer in time may well be there."""
    listener = socket.socket()  # takes no connections: its queue of one is full
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    fillers = [socket.socket() for _ in range(4)]
    upstream = Upstream(Timeouts(connect=0.05))
    try:
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        worker = Worker(WorkerSpec(url=f"127.0.0.1:{port}"))
        assert await Vitals(upstream).check(worker, "/health", 5.0) is Vital.UNWELL
        assert worker.problem == "connect: no connection in time"
    finally:
        await upstream.close()
        for one in (listener, *fillers):
            one.close()


class Scripted:
    """A prober that answers from a list, then for ever as at last; and a listener."""

    def __init__(self, vitals: list[Vital], starts: list[float | None]) -> None:
        self.vitals, self.starts = vitals, starts
        self.asked = 0
        self.events: list[str] = []

    async def check(self, worker, endpoint, timeout):
        self.asked += 1
        return self.vitals.pop(0) if len(self.vitals) > 1 else self.vitals[0]

    async def models(self, worker, timeout):
        return {}  # not known: so they are asked for at every check

    async def started_at(self, worker, timeout):
        return self.starts.pop(0) if len(self.starts) > 1 else self.starts[0]

    def recovered(self, worker):
        self.events.append("recovered")

    def restarted(self, worker):
        self.events.append("restarted")


@pytest.mark.parametrize(
    ("vitals", "starts", "events"),
    [
        ([Vital.WELL] * 5, [7.0], ["recovered"]),
        ([Vital.WELL] * 5, [7.0, 8.0], ["recovered", "restarted"]),
        ([Vital.WELL] * 5, [None, 8.0, None, 8.0], ["recovered"]),
        ([Vital.WELL, Vital.UNWELL, Vital.WELL], [7.0], ["recovered", "recovered"]),
        ([Vital.GONE, Vital.GONE, Vital.WELL], [7.0], ["recovered"]),
        ([Vital.WELL, Vital.GONE, Vital.WELL], [7.0, 8.0], ["recovered", "restarted", "recovered"]),
        ([Vital.WELL, Vital.GONE, Vital.WELL], [None], ["recovered", "restarted", "recovered"]),
    ],
    ids=["runs on", "another process", "did not always say", "was unwell", "starts late", "was gone", "says nothing"],
)
async def test_restarts_are_told_from_pauses(vitals, starts, events):
    script = Scripted(vitals, starts)
    settings = HealthSettings(interval=0.001, failures=1, successes=1)
    monitor = HealthMonitor(script, settings, script)
    monitor.watch(Worker(WorkerSpec(url="a:1")))
    try:
        await until(lambda: script.asked >= 6)
    finally:
        monitor.close()
    assert script.events == events
