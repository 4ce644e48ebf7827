"""Snapshots of the fleet: the owner takes them, a data process makes its own registry equal to them."""

from __future__ import annotations

from collections.abc import Callable

from router.fleet.registry import Registry
from router.fleet.worker import Health, Worker, WorkerSpec
from router.guards import Guards
from router.inflight import Inflight
from router.processes.guard_mirror import GuardMirror, view_of
from router.processes.messages import Snapshot, WorkerState
from router.processes.shared_leases import SharedLeases


def take(version: int, registry: Registry, guards: Guards, slot: Callable[[str], int], inflight: Inflight) -> Snapshot:
    """The fleet as it is now."""
    states = [
        WorkerState(
            worker.id,
            slot(worker.url),
            worker.spec.model_dump_json(exclude_unset=True).encode(),
            worker.health.value,
            worker.gone,
            worker.draining,
            worker.models,
            view_of(guards.breaker(worker.url)),
            guards.rests_until(worker.url),
        )
        for worker in registry.all()
    ]
    return Snapshot(version, states, inflight.starting, inflight.ready, inflight.refusing)


class FleetMirror:
    """Writes the registry, the guards and the state of a data process. ``part`` makes this process's spec of a worker:
    its part of the worker's own limit.
    """

    def __init__(
        self,
        registry: Registry,
        guards: GuardMirror,
        leases: SharedLeases,
        inflight: Inflight,
        part: Callable[[WorkerSpec], WorkerSpec] = lambda spec: spec,
    ) -> None:
        self._part = part
        self._registry = registry
        self._guards = guards
        self._leases = leases
        self._inflight = inflight
        self._version = 0
        self._specs: dict[str, bytes] = {}  # as the last snapshot told them, by the worker's id

    def become(self, snapshot: Snapshot, now: float) -> None:
        """Make everything equal to ``snapshot``, unless a later one was seen."""
        if snapshot.version <= self._version:
            return
        self._version = snapshot.version
        self._inflight.starting = snapshot.starting
        self._inflight.ready = snapshot.ready
        self._inflight.refusing = snapshot.refusing
        kept = {state.id for state in snapshot.workers}
        for worker in self._registry.all():
            if worker.id not in kept:
                self._specs.pop(worker.id, None)
                self._registry.remove(worker)
        for state in snapshot.workers:
            self._become(state, now)

    def _become(self, state: WorkerState, now: float) -> None:
        worker = self._registry.find(state.id)
        if worker is None:
            worker = self._add(state)
        elif self._specs[state.id] != state.spec:
            self._registry.change(worker, self._part(WorkerSpec.model_validate_json(state.spec)))
        self._specs[state.id] = state.spec
        worker.health = Health(state.health)
        worker.gone = state.gone
        worker.draining = state.draining
        worker.models = state.models
        self._guards.show(worker.url, state.breaker, state.rest_until, now)

    def _add(self, state: WorkerState) -> Worker:
        spec = self._part(WorkerSpec.model_validate_json(state.spec))
        self._leases.place(spec.url, state.slot)
        return self._registry.add(spec, state.id)
