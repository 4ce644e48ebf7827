"""Work in flight of all processes in one shared array: each writes its own row and reads the sum of the others'.

The array lies in memory without a name, which a data process inherits as a file descriptor. A worker has a slot; the
owner hands slots out. A number is eight aligned bytes, so it is read as it was written, and no lock is needed.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import NamedTuple

import numpy as np

SLOTS = 4096  # workers at a time; those beyond are counted by each process alone
_FIELDS = 5  # requests, prefill tokens, decodes, recent tokens, and the time of the latter


class Load(NamedTuple):
    """Work on one worker, as leases sum it up."""

    requests: int = 0
    prefill_tokens: int = 0
    decodes: int = 0
    recent_tokens: float = 0.0


class SharedLoads:
    """The array of ``processes`` rows. ``descriptor``: that of the owner, inherited; None: make a new array."""

    def __init__(self, processes: int, descriptor: int | None = None) -> None:
        size = _FIELDS * processes * SLOTS * 8
        self.descriptor = _anonymous(size) if descriptor is None else descriptor
        memory = mmap.mmap(self.descriptor, size)
        self._cells = memoryview(memory).cast("d")
        self._array = np.frombuffer(memory, dtype=np.float64).reshape(_FIELDS, processes, SLOTS)
        self._field = processes * SLOTS  # cells from one field of a slot to the next

    def write(self, process: int, slot: int, requests: int, prefill_tokens: int, decodes: int) -> None:
        """What ``process`` has in flight there."""
        cells, at = self._cells, process * SLOTS + slot
        cells[at] = requests
        cells[at + self._field] = prefill_tokens
        cells[at + 2 * self._field] = decodes

    def write_recent(self, process: int, slot: int, tokens: float, now: float) -> None:
        """Its decayed recent work, as it is ``now``."""
        at = process * SLOTS + slot
        self._cells[at + 3 * self._field] = tokens
        self._cells[at + 4 * self._field] = now

    def clear(self, process: int, slot: int | None = None) -> None:
        """The process ended, or has nothing to do with the slot any more."""
        self._array[:, process, slice(None) if slot is None else slot] = 0.0

    def total(self, slot: int) -> Load:
        """The work of all processes; recent work as it was when it was written."""
        requests, prefill, decodes, recent, _ = self._array[:, :, slot].sum(axis=1).tolist()
        return Load(int(requests), int(prefill), int(decodes), recent)

    def others(
        self, process: int, slots: int, now: float, half_life_s: float
    ) -> list[tuple[float, float, float, float] | None]:
        """Work of all processes but one on the first ``slots`` slots: the fields of :class:`Load`; None: no work."""
        view = self._array[:, :, :slots]
        fields = view[:4].copy()
        fields[3] *= np.exp2(-np.maximum(0.0, now - view[4]) / half_life_s)
        fields[:, process] = 0.0
        rows = fields.sum(axis=1).T.tolist()
        return [(row[0], row[1], row[2], row[3]) if any(row) else None for row in rows]


class Slots:
    """Which worker has which slot."""

    def __init__(self) -> None:
        self._by_url: dict[str, int] = {}
        self._free: list[int] = []

    def take(self, url: str) -> int:
        """The slot of a worker that came; -1 when all are taken."""
        slot = self._free.pop() if self._free else len(self._by_url)
        if slot >= SLOTS:
            return -1
        self._by_url[url] = slot
        return slot

    def give_back(self, url: str) -> None:
        if (slot := self._by_url.pop(url, None)) is not None:
            self._free.append(slot)

    def of(self, url: str) -> int:
        return self._by_url.get(url, -1)


def _anonymous(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("warmlane-loads")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
