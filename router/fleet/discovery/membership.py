"""The workers that one source brought into the fleet, kept equal to what it says now."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from router.fleet.registry import LimitError, Registry
from router.fleet.worker import Worker, WorkerSpec

log = logging.getLogger(__name__)


class DiscoveryError(Exception):
    """A source of workers cannot be used; one sentence for the operator."""


class Membership:
    """Adds, changes and removes workers. Those that others brought are left alone."""

    def __init__(self, registry: Registry, source: str) -> None:
        self._registry = registry
        self._source = source
        self._mine: dict[str, Worker] = {}

    def become(self, specs: Iterable[WorkerSpec]) -> None:
        """These are the source's workers now. Of two specs with one address the first counts.

        Raises :class:`DiscoveryError`, and changes nothing, when one of them cannot be used.
        """
        wanted: dict[str, WorkerSpec] = {}
        for spec in specs:
            self._check(spec)
            wanted.setdefault(spec.url, spec)
        for url in [url for url in self._mine if url not in wanted]:
            log.info("%s: worker %s is gone", self._source, url)
            self._registry.remove(self._mine.pop(url))
        for url, spec in wanted.items():
            self._take(url, spec)

    def _check(self, spec: WorkerSpec) -> None:
        try:
            self._registry.check(spec)
        except LimitError as error:
            raise DiscoveryError(f"{self._source}, worker {spec.url}: max_concurrent_requests: {error}") from None

    def _take(self, url: str, spec: WorkerSpec) -> None:
        mine = self._mine.get(url)
        present = self._registry.find(url)
        if mine is not None and present is mine:
            if mine.spec != spec:
                self._registry.change(mine, spec)
        elif present is None:
            log.info("%s: worker %s", self._source, url)
            self._mine[url] = self._registry.add(spec)
