"""Who gives way when pages run out, or to a request of far higher priority: back to the queue, to start again later."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backend.messages import SchedulerStats
from backend.scheduler.admission import Admission
from backend.scheduler.queue import Request
from backend.scheduler.rows import Rows
from backend.scheduler.running import Running

SettleAll = Callable[[], bool]


class Retraction:
    """A row is retracted only when no launched step refers to it: its tokens are all known then.

    ``settle_all`` takes in the results of the steps under way; false when there were none.
    """

    def __init__(
        self, rows: Rows, running: Running, admission: Admission, stats: SchedulerStats, settle_all: SettleAll
    ) -> None:
        self._rows = rows
        self._slots = rows.slots
        self._running = running
        self._admission = admission
        self._stats = stats
        self._settle_all = settle_all

    def grow_rows(self) -> None:
        """Give every row that outgrew its pages one more; retract the cheapest rows when none is left."""
        while not self._rows.has_room(short := self._rows.outgrown()):
            if not self._settle_all():  # rows that end there may leave room enough
                self._retract_cheapest()
        if len(short):
            self._rows.grow(short)

    def preempt(self, threshold: int) -> None:
        """Retract running requests of far lower priority while the first waiting one finds no room."""
        while (waiting := self._admission.next()) is not None and not self._admission.fits(waiting):
            running = [request for request in self._running.requests.values() if request.slot >= 0]
            victims = [request for request in running if waiting.priority - request.priority > threshold]
            if not victims:
                return
            if not self._settle_all():  # some of them may end there
                self._retract(min(victims, key=lambda request: (request.priority, -request.uid)))

    def retract_all(self) -> None:
        """Send every running request back to the queue, the oldest to its head."""
        running = [request for request in self._running.requests.values() if request.slot >= 0]
        for request in sorted(running, key=lambda request: -request.uid):
            self._retract(request)

    def _retract_cheapest(self) -> None:
        """Retract the row with the least output (then the youngest); the last one left is aborted instead."""
        slots = self._slots
        rows = slots.running()
        if not len(rows):
            return
        output = slots.known[rows] - slots.prompt_len[rows]
        row = int(rows[np.lexsort((-slots.uid[rows], output))[0]])
        request = self._running.requests[int(slots.uid[row])]
        if len(rows) == 1:
            self._running.finish(request, "abort", message=self._admission.no_room(int(slots.known[row]) + 1))
            return
        self._retract(request)
        rows = slots.running()
        decoded = int((slots.known[rows] - slots.prompt_len[rows]).sum())
        max_new = int((slots.limit[rows] - slots.prompt_len[rows]).sum())
        self._admission.ratio.raise_after_retraction(decoded, max_new, len(rows))

    def _retract(self, request: Request) -> None:
        """Send a running request back to the head of the queue."""
        row = request.slot
        request.tokens = self._slots.tokens[row, : self._slots.known[row]].copy()
        request.vector = None  # it starts again
        self._running.leave(request)
        self._admission.wait(request, first=True)
        self._stats.retracted_total += 1
        self._stats.retracted_input_tokens_total += request.prompt_len
        self._stats.retracted_output_tokens_total += len(request.tokens) - request.prompt_len
