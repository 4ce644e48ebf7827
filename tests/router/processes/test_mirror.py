"""Snapshots: after each one the data process's fleet is the owner's."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config import BreakerSettings
from router.fleet.registry import Registry
from router.fleet.worker import Health, WorkerSpec
from router.guards import Guards
from router.inflight import Inflight
from router.processes.guard_mirror import GuardMirror
from router.processes.messages import ANY, Snapshot
from router.processes.mirror import FleetMirror, take
from router.processes.shared_leases import SharedLeases
from router.processes.shared_load import SharedLoads, Slots

URLS = [f"http://127.0.0.1:{port}" for port in range(1, 5)]


class Pair:
    """An owner's fleet and a mirror of it."""

    def __init__(self):
        self.registry, self.guards, self.inflight, self.slots = (
            Registry(),
            Guards(BreakerSettings()),
            Inflight(),
            Slots(),
        )
        self.registry.listen(
            lambda worker: self.slots.take(worker.url), lambda worker: self.slots.give_back(worker.url)
        )
        self.copy, self.copied_state = Registry(), Inflight()
        leases = SharedLeases(SharedLoads(2), 0)
        self.changes = []
        self.copy.listen(lambda _: None, lambda worker: leases.forget(worker.url), self.changes.append)
        self.mirror = FleetMirror(self.copy, GuardMirror(BreakerSettings(), lambda _: None), leases, self.copied_state)
        self.version = 0

    def snapshot(self) -> Snapshot:
        self.version += 1
        made = take(self.version, self.registry, self.guards, self.slots.of, self.inflight)
        return msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=ANY)

    def send(self):
        self.mirror.become(self.snapshot(), 0.0)


def shown(registry: Registry) -> dict:
    return {
        worker.url: (worker.id, worker.spec, worker.health, worker.gone, worker.draining, worker.models)
        for worker in registry.all()
    }


STEP = st.tuples(
    st.sampled_from(["add", "remove", "health", "drain", "models", "change", "send"]),
    st.sampled_from(URLS),
    st.integers(0, 5),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=40))
def test_the_copy_is_the_owners_fleet(steps):
    pair = Pair()
    for what, url, number in steps:
        worker = pair.registry.find(url)
        if what == "send":
            pair.send()
        elif what == "add" and worker is None:
            pair.registry.add(WorkerSpec(url=url, api_key="secret", labels={"zone": str(number)}))
        elif worker is None:
            continue
        elif what == "remove":
            pair.registry.remove(worker)
        elif what == "health":
            worker.health = list(Health)[number % 3]
            worker.gone = number > 3
        elif what == "drain":
            pair.registry.drain(worker, number > 2)
        elif what == "models":
            worker.models = {f"model-{number}": {"id": f"model-{number}"}}
        elif what == "change":
            pair.registry.change(worker, worker.spec.model_copy(update={"priority": number}))
    pair.send()
    assert shown(pair.copy) == shown(pair.registry)


def test_an_older_snapshot_changes_nothing():
    pair = Pair()
    pair.registry.add(WorkerSpec(url=URLS[0]))
    old = pair.snapshot()
    pair.inflight.ready = False
    pair.send()
    pair.mirror.become(old, 0.0)
    assert not pair.copied_state.ready


def test_a_worker_that_came_back_is_another_one():
    pair = Pair()
    first = pair.registry.add(WorkerSpec(url=URLS[0]))
    pair.send()
    pair.registry.remove(first)
    second = pair.registry.add(WorkerSpec(url=URLS[0]))
    pair.send()
    assert [worker.id for worker in pair.copy.all()] == [second.id]
