"""The scheduler: continuous batching by one rule — a step computes some of each row's missing tokens.

Nothing here depends on a clock, on identity or on hash order: the same messages give the same batches.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Protocol

import numpy as np

from backend.grammar import GrammarCompiler, GrammarError
from backend.messages import Finish, FromScheduler, NewRequest, SchedulerStats, ToScheduler
from backend.scheduler.admission import Admission
from backend.scheduler.batch import DeviceLost, LaunchedStep, StepBatch
from backend.scheduler.batching import Batcher
from backend.scheduler.figures import tell
from backend.scheduler.guided import Guides
from backend.scheduler.invariants import check_invariants, idle_problem
from backend.scheduler.limits import SchedulerLimits
from backend.scheduler.queue import Request
from backend.scheduler.retraction import Retraction
from backend.scheduler.rows import Rows
from backend.scheduler.running import Running
from backend.scheduler.slots import Slots

logger = logging.getLogger(__name__)


class StepRunner(Protocol):
    def launch(self, batch: StepBatch, slots: Slots) -> LaunchedStep:
        """Start computing ``batch``; ``slots`` is read during the call only."""


class Scheduler:
    """Turns messages into batches and results into messages."""

    def __init__(
        self, runner: StepRunner, limits: SchedulerLimits, rows: Rows, grammars: GrammarCompiler | None = None
    ) -> None:
        self.limits = limits
        self.rows = rows
        self.slots = rows.slots
        self.stats = SchedulerStats(total_tokens=limits.num_pages * limits.page_size)
        self._guides = Guides(rows.slots, grammars, limits.vocab_size)
        self.running = Running(rows, self._guides)
        self.requests = self.running.requests
        self.admission = Admission(limits, rows, self.running, self._guides, self.stats)
        self._retraction = Retraction(rows, self.running, self.admission, self.stats, self._settle_all)
        self._batcher = Batcher(limits, rows, self.running, self.admission)
        self._runner = runner
        self._launched: deque[tuple[StepBatch, LaunchedStep]] = deque()
        self._random = np.random.default_rng(limits.random_seed)
        self._paused = False

    @property
    def has_work(self) -> bool:
        """Whether a step would move anything on."""
        return not self._paused and bool(self.requests or self._launched)

    def describe(self) -> str:
        """What is going on, in one line for the log."""
        steps = ", ".join(f"{len(batch.rows)} rows with {batch.num_tokens} tokens" for batch, _ in list(self._launched))
        waiting = len(self.admission.waiting)
        return f"{len(self.requests)} requests, {waiting} of them waiting; steps under way: {steps or 'none'}"

    # -- messages ---------------------------------------------------------------------------------------------------

    def receive(self, message: ToScheduler) -> None:
        """Take in what the frontend sent."""
        for new in message.new:
            self._enqueue(new)
        for uid in message.abort:
            self._abort(uid)
        if message.pause:
            self._pause(retract=message.pause == "retract")
        if message.resume:
            self._paused = False
        if message.flush_cache:
            self.running.out.flushed = (message.flush_cache, self._flush())

    def _enqueue(self, new: NewRequest) -> None:
        if self.admission.full:
            limit = self.limits.max_queued_requests
            message = f"The request queue is full ({limit} requests wait). Try again later."
            self.running.out.finished.append(Finish(new.uid, "abort", message=message, status_code=503))
            return
        seed = new.sampling.sampling_seed
        request = Request.of(new, int(self._random.integers(0, 2**63)) if seed is None else seed)
        if new.grammar is not None:
            try:
                request.guide = self._guides.begin(new, new.grammar)
            except GrammarError as error:
                self.running.out.finished.append(Finish(new.uid, "abort", message=str(error), status_code=400))
                return
        self.requests[new.uid] = request
        self.admission.wait(request)

    def _abort(self, uid: int) -> None:
        request = self.requests.pop(uid, None)
        if request is None:
            return
        if request.slot < 0:
            self.admission.waiting.remove(request)
        else:
            self.running.leave(request)

    def _flush(self) -> bool:
        """Empty the prefix cache, unless requests are running."""
        if not len(self.slots.running()):
            self._settle()  # the last steps of requests that have ended
        if not self.rows.idle:
            return False
        self.rows.flush()
        return True

    def _pause(self, *, retract: bool) -> None:
        """Stand still until told to go on. With ``retract`` no request keeps its row: the cache can be flushed."""
        self._settle()
        if retract:
            self._retraction.retract_all()
        self._paused = True

    # -- a step -----------------------------------------------------------------------------------------------------

    def step(self) -> FromScheduler:
        """Move on, unless paused. Call while ``has_work``, and once after other messages."""
        if not self._paused:
            self._advance()
        if self.limits.check_invariants:
            check_invariants(self)
        elif not self.requests and not self._launched:
            self._mend()
        return self._take_output()

    def _advance(self) -> None:
        """Launch the next batch and settle what is due."""
        if self._launched and self._launched[-1][0].allowed is not None:
            self._settle()  # what a grammar allows next depends on the token before
        batch = self._schedule()
        if batch is not None:
            self._launch(batch)
        elif not self._launched:
            self.admission.wait_for_grammars()
        self._settle(keep=1 if self.limits.overlap and batch is not None else 0)

    def _schedule(self) -> StepBatch | None:
        if self.limits.preemption_threshold is not None:
            self._retraction.preempt(self.limits.preemption_threshold)
        self._retraction.grow_rows()
        batch = self._batcher.choose()
        return None if batch is None else self._guides.mask(batch)

    def _launch(self, batch: StepBatch) -> None:
        slots = self.slots
        launched = self._runner.launch(batch, slots)
        slots.computed[batch.rows] += batch.lens
        slots.known[batch.rows] += batch.samples
        slots.in_flight[batch.rows] += 1
        self._launched.append((batch, launched))
        decodes = len(batch.rows) - (0 if batch.in_prompt is None else int(np.count_nonzero(batch.in_prompt)))
        self.stats.decode_tokens_total += decodes
        self.stats.prefill_tokens_total += batch.num_tokens - decodes
        self.admission.ratio.decay()

    def _settle(self, keep: int = 0) -> None:
        """Take in the results of launched steps, oldest first, until ``keep`` are left."""
        while len(self._launched) > keep:
            batch, launched = self._launched[0]
            try:
                tokens = launched.tokens()  # who interrupts this finds the step again
            except DeviceLost:
                raise
            except Exception:
                logger.exception("a step of %d rows failed; their requests are aborted", len(batch.rows))
                self._launched.popleft()
                self.running.fail_step(batch)
                continue
            self._launched.popleft()
            self.running.take_in(batch, launched, tokens)

    def _settle_all(self) -> bool:
        under_way = bool(self._launched)
        self._settle()
        return under_way

    def _mend(self) -> None:
        """Nothing runs, so all memory must be free or cached. A fault that lost some is logged, and costs the cache."""
        if (problem := idle_problem(self.rows)) is not None:
            logger.error("memory accounting is wrong while idle, the prefix cache is started anew: %s", problem)
            self.rows.reset()

    def count(self) -> None:
        """Bring up to date those ``stats`` that would cost too much at every step."""
        self.stats.decode_sum_seq_lens = int(self.slots.known[self.slots.running()].sum())
        self.stats.waiting_for_grammars = self.admission.compiling

    def _take_output(self) -> FromScheduler:
        out = self.running.take_output()
        tell(self.stats, self.rows, self.running, self.admission)
        self.stats.paused = self._paused
        out.stats = self.stats
        return out
