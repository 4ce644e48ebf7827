"""What health checks ask a worker: is it well, which models has it, since when does its process run."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any, Protocol

import msgspec

from router.fleet.told import decoded, figure
from router.fleet.worker import Worker
from router.upstream import UpstreamError

_START = re.compile(rb"^process_start_time_seconds(?:\{[^}]*\})? ([0-9.e+]{1,32})$", re.MULTILINE)


class Vital(Enum):
    """How a health check went."""

    WELL = auto()
    UNWELL = auto()
    GONE = auto()  # nobody listens at its address: whatever it knew is lost


class Fetcher(Protocol):
    """What the checks need from the connections to workers."""

    async def fetch(
        self, worker: Worker, method: str, path: str, timeout: float, body: bytes | None = None
    ) -> tuple[int, bytes]: ...


class _ModelList(msgspec.Struct):
    data: list[dict[str, Any]]


class Vitals:
    """Small questions with a time limit. None of them raises because of the worker."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def check(self, worker: Worker, endpoint: str, timeout: float) -> Vital:
        """Did the health endpoint answer 2xx in time? ``worker.problem`` says why not."""
        try:
            status, _ = await self._fetcher.fetch(worker, "GET", endpoint, timeout)
        except UpstreamError as error:
            worker.problem = str(error)
            return Vital.GONE if error.gone else Vital.UNWELL
        well = 200 <= status < 300
        worker.problem = "" if well else f"status {status} of {endpoint}"
        return Vital.WELL if well else Vital.UNWELL

    async def models(self, worker: Worker, timeout: float) -> dict[str, dict[str, Any]] | None:
        """The model cards that ``/v1/models`` lists, by id; None when it did not say."""
        try:
            status, body = await self._fetcher.fetch(worker, "GET", "/v1/models", timeout)
        except UpstreamError:
            return None
        listed = decoded(body, _ModelList) if status == 200 else None
        return None if listed is None else {str(card["id"]): card for card in listed.data if "id" in card}

    async def started_at(self, worker: Worker, timeout: float) -> float | None:
        """When its process began, in seconds since 1970, if its metrics say so."""
        try:
            status, body = await self._fetcher.fetch(worker, "GET", "/metrics", timeout)
        except UpstreamError:
            return None
        found = _START.search(body) if status == 200 else None
        return figure(found[1]) if found else None
