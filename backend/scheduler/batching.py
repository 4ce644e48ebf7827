"""Which tokens of which rows the next step computes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.scheduler.admission import Admission
from backend.scheduler.batch import LogprobRow, PooledRow, StepBatch
from backend.scheduler.limits import SchedulerLimits
from backend.scheduler.rows import Rows
from backend.scheduler.running import Running
from backend.scheduler.slots import NO_ROWS

NO_LENS = np.empty(0, np.int32)


class Batcher:
    """Every row that misses one token, then prompts (running before waiting) while the budget lasts."""

    def __init__(self, limits: SchedulerLimits, rows: Rows, running: Running, admission: Admission) -> None:
        self._limits = limits
        self._rows = rows
        self._slots = rows.slots
        self._running = running
        self._admission = admission
        self._ones = np.ones(limits.max_running_requests, np.int32)
        self._since_admission = 0  # steps
        self._plain: StepBatch | None = (
            None  # the last batch, if all its rows were past their prompts and wanted no more
        )

    def choose(self) -> StepBatch | None:
        """The next batch, newcomers placed in their slots; None when there is nothing to compute."""
        slots = self._slots
        rows = slots.running()
        missing = slots.missing(rows)
        single = missing == 1
        admitted, long_rows, long_lens = NO_ROWS, NO_ROWS, NO_LENS
        due = np.count_nonzero(single)
        self._since_admission += 1
        if len(self._admission.waiting) or np.count_nonzero(missing) > due:
            long = missing > 1
            may_admit = self._since_admission >= self._limits.decode_steps or not len(rows)
            admitted, long_rows, long_lens = self._prompts(rows[long], missing[long], may_admit)
        singles = rows if due == len(rows) else rows[single]
        if len(long_rows):
            return self._mixed(singles, long_rows, long_lens, admitted)
        return self._batch(singles, self._ones[: len(singles)], len(singles), admitted) if len(singles) else None

    def _prompts(
        self, rows: NDArray[np.int64], missing: NDArray[np.int32], may_admit: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Share the prefill budget over ``rows`` and newcomers: (newcomers, rows that compute, tokens of each)."""
        budget = self._limits.prefill_budget
        rows, lens = self._share(rows, missing, budget)
        admitted = NO_ROWS
        if may_admit and len(self._admission.waiting):
            admitted, self._since_admission = self._admission.admit(budget - int(lens.sum())), 0
        if len(admitted):
            new_rows, new_lens = self._share(admitted, self._slots.missing(admitted), budget - int(lens.sum()))
            rows, lens = np.concatenate((rows, new_rows)), np.concatenate((lens, new_lens))
        return admitted, rows, lens

    def _mixed(
        self,
        singles: NDArray[np.int64],
        long_rows: NDArray[np.int64],
        long_lens: NDArray[np.int32],
        admitted: NDArray[np.int64],
    ) -> StepBatch:
        rows = np.concatenate((singles, long_rows))
        lens = np.concatenate((self._ones[: len(singles)], long_lens))
        order = np.lexsort((rows, lens > 1))
        return self._batch(rows[order], lens[order], int(lens.sum()), admitted)

    def _batch(
        self, rows: NDArray[np.int64], lens: NDArray[np.int32], num_tokens: int, admitted: NDArray[np.int64]
    ) -> StepBatch:
        slots = self._slots
        starts, known = slots.computed[rows], slots.known[rows]
        ends = starts + lens
        samples = (ends == known) & (known < slots.limit[rows])
        logprobs: tuple[LogprobRow, ...] = ()
        pooled: tuple[PooledRow, ...] = ()
        before = self._plain
        if before is not None and rows is before.rows and slots.version == before.version:
            generations, in_prompt = before.generations, None  # what held for them holds
        else:
            generations, in_prompt = slots.generation[rows], starts < slots.prompt_len[rows]
            in_prompt = in_prompt if np.count_nonzero(in_prompt) else None
            wanting = slots.wants_logprobs[rows]
            logprobs = self._logprob_rows(rows, ends, wanting) if np.count_nonzero(wanting) else ()
            pooled = self._pooled_rows(rows, ends) if np.count_nonzero(slots.pooled[rows]) else ()
        self._rows.cover(rows, ends)
        batch = StepBatch(
            rows=rows,
            starts=starts,
            lens=lens,
            samples=samples,
            generations=generations,
            version=slots.version,
            in_prompt=in_prompt,
            num_tokens=num_tokens,
            logprobs=logprobs,
            pooled=pooled,
            fresh=admitted,
            transfers=self._rows.take_transfers(),
        )
        self._plain = batch if in_prompt is None and not logprobs and not pooled else None
        return batch

    def _pooled_rows(self, rows: NDArray[np.int64], ends: NDArray[np.int32]) -> tuple[PooledRow, ...]:
        found = []
        for i in self._slots.pooled[rows].nonzero()[0]:
            request = self._running.requests[int(self._slots.uid[rows[i]])]
            mean, last = request.pooling == "mean", int(ends[i]) == request.prompt_len
            if mean or last:
                found.append(PooledRow(int(i), mean, last, request.pooling == "classify"))
        return tuple(found)

    def _logprob_rows(
        self, rows: NDArray[np.int64], ends: NDArray[np.int32], wanting: NDArray[np.bool_]
    ) -> tuple[LogprobRow, ...]:
        """The rows of a batch whose requests want log probabilities, and the prompt positions that are due."""
        found = []
        for i in wanting.nonzero()[0]:
            request = self._running.requests[int(self._slots.uid[rows[i]])]
            if request.logprobs is not None:
                last = min(int(ends[i]) + 1, request.prompt_len)
                first, request.logprob_from = min(request.logprob_from, last), max(request.logprob_from, last)
                found.append(LogprobRow(int(i), request.logprobs, first, last))
        return tuple(found)

    def _share(
        self, rows: NDArray[np.int64], missing: NDArray[np.int32], budget: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Split ``budget`` tokens over ``rows`` in order: the first ones whole, the last one cut, the rest none."""
        before = np.cumsum(missing) - missing
        lens = np.clip(budget - before, 0, missing).astype(np.int32)
        if self._limits.deterministic:
            starts, block = self._slots.computed[rows], self._limits.page_size
            whole = np.maximum((starts + lens) // block * block - starts, 0)
            lens = np.where(starts + lens < self._slots.prompt_len[rows], whole, lens).astype(np.int32)
        return rows[lens > 0], lens[lens > 0]
