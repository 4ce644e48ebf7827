"""The set of workers: the one place that knows who is in the fleet."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from router.fleet.worker import Health, Worker, WorkerSpec

ANY_MODEL = frozenset({"", "default"})  # names by which clients mean "whatever you serve"

Listener = Callable[[Worker], None]
MAX_VIEWS = 256  # models asked for, whatever clients call them


class LimitError(ValueError):
    """A worker's own limit cannot be kept."""


class _View(NamedTuple):
    """What a model means for the fleet as it is."""

    eligible: list[Worker]
    served: bool
    known: bool


class Registry:
    """Workers by address. Listeners are told of each one that comes and goes.

    ``processes``: so many divide each worker's own limit among them.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._workers: dict[str, Worker] = {}
        self._on_add: list[Listener] = []
        self._on_remove: list[Listener] = []
        self._on_change: list[Listener] = []
        self._views: dict[str, _View] = {}  # by model, until a worker changes

    def listen(self, on_add: Listener, on_remove: Listener, on_change: Listener | None = None) -> None:
        """Call these from now on: for a worker that comes, one that goes, one that is reached or used otherwise."""
        self._on_add.append(on_add)
        self._on_remove.append(on_remove)
        if on_change is not None:
            self._on_change.append(on_change)

    def add(self, spec: WorkerSpec, name: str | None = None) -> Worker:
        """Take a worker in, with the id ``name``. Raises ``ValueError`` when its address is already known, and
        :class:`LimitError`.
        """
        self.check(spec)
        if spec.url in self._workers:
            raise ValueError(f"worker {spec.url} is already registered")
        worker = self._workers[spec.url] = Worker(spec) if name is None else Worker(spec, name)
        worker.on_change = self._views.clear
        self._views.clear()
        for listener in self._on_add:
            listener(worker)
        return worker

    def check(self, spec: WorkerSpec) -> None:
        """Raise :class:`LimitError` for a limit that leaves some of the processes without a part."""
        limit = spec.max_concurrent_requests
        if limit is not None and limit < self._processes:
            raise LimitError(f"{limit} cannot be divided among --workers {self._processes} processes")

    def remove(self, worker: Worker) -> None:
        """Send no more requests to ``worker``; those under way finish."""
        if self._workers.get(worker.url) is not worker:
            return
        del self._workers[worker.url]
        self._views.clear()
        for listener in self._on_remove:
            listener(worker)

    def change(self, worker: Worker, spec: WorkerSpec) -> None:
        """Reach and watch ``worker`` as ``spec`` says from now on; its address stays. Raises :class:`LimitError`."""
        self.check(spec)
        if spec.url != worker.url:
            raise ValueError(f"worker {worker.url} cannot move to {spec.url}: remove it and add another")
        worker.spec = spec
        self._changed(worker)

    def drain(self, worker: Worker, draining: bool) -> None:
        """Whether ``worker`` gets no new requests."""
        worker.draining = draining
        self._changed(worker)

    def _changed(self, worker: Worker) -> None:
        for listener in self._on_change:
            listener(worker)

    def find(self, id_or_url: str) -> Worker | None:
        """The worker with this id or exact address."""
        if id_or_url in self._workers:
            return self._workers[id_or_url]
        return next((worker for worker in self._workers.values() if worker.id == id_or_url), None)

    def all(self) -> list[Worker]:
        return list(self._workers.values())

    def healthy(self) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.health is Health.HEALTHY]

    def eligible(self, model: str, excluded: Collection[str] = ()) -> list[Worker]:
        """Workers that take requests and may serve ``model``, without those whose address is ``excluded``.

        Not to be changed by the caller: most are given the same list.
        """
        return self._among(model, excluded) if excluded else self._view(model).eligible

    def _among(self, model: str, excluded: Collection[str]) -> list[Worker]:
        anything = model in ANY_MODEL
        return [
            worker
            for worker in self._workers.values()
            if worker.takes_requests and worker.url not in excluded and (anything or worker.may_serve(model))
        ]

    def last_resort(self, model: str, excluded: Collection[str] = ()) -> list[Worker]:
        """Workers that fail their checks but are there: better than nobody, for checks may err."""
        return [
            worker
            for worker in self._workers.values()
            if worker.health is Health.UNHEALTHY
            and not (worker.gone or worker.draining)
            and worker.url not in excluded
            and (model in ANY_MODEL or worker.may_serve(model))
        ]

    def serves(self, model: str) -> bool:
        """False when some worker told its models, none has ``model``, and none takes requests without having told."""
        return self._view(model).served

    def _serves(self, model: str) -> bool:
        workers = self._workers.values()
        if model in ANY_MODEL or not any(worker.names for worker in workers):
            return True
        return any(worker.may_serve(model) for worker in workers if worker.names or worker.takes_requests)

    def knows(self, model: str) -> bool:
        """Does any worker report ``model``?"""
        return self._view(model).known

    def _view(self, model: str) -> _View:
        """The answers that every request asks for."""
        view = self._views.get(model)
        if view is None:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            view = self._views[model] = _View(self._among(model, ()), self._serves(model), self._knows(model))
        return view

    def _knows(self, model: str) -> bool:
        return any(model == worker.spec.model_id or model in worker.models for worker in self._workers.values())

    def canonical(self, model: str) -> str:
        """``model``, or what a client that names none means when there is only one."""
        if model not in ANY_MODEL:
            return model
        known = {name for worker in self._workers.values() for name in worker.names}
        return known.pop() if len(known) == 1 else ""

    def model_cards(self) -> dict[str, dict[str, Any]]:
        """The models of the healthy workers by id; of a model served by several, the first card."""
        cards: dict[str, dict[str, Any]] = {}
        for worker in self.healthy():
            for model, card in worker.cards.items():
                cards.setdefault(model, card)
        return cards
