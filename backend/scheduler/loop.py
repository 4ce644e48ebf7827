"""The scheduler: continuous batching by one rule — a step computes some of each row's missing tokens.

Nothing here depends on a clock, on identity or on hash order: the same messages give the same batches.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.cache.radix import common_prefix
from backend.messages import Finish, FromScheduler, NewRequest, SchedulerStats, ToScheduler
from backend.scheduler.admission import RESERVED_OUTPUT_MAX, NewTokenRatio
from backend.scheduler.batch import LaunchedStep, LogprobRow, StepBatch
from backend.scheduler.invariants import check_invariants
from backend.scheduler.order import make_order
from backend.scheduler.queue import Request, WaitingQueue
from backend.scheduler.rows import Rows
from backend.scheduler.running import Running
from backend.scheduler.slots import Slots

logger = logging.getLogger(__name__)

WAITING_LOOKAHEAD = 64  # waiting requests that are looked at beyond the free slots: some are put off
IN_FLIGHT_PREFIX_MIN = 32  # tokens; a shorter shared prefix is computed again rather than waited for
NO_ROWS = np.empty(0, np.int64)
NO_LENS = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """Sizes that bound the scheduler, all resolved."""

    max_running_requests: int
    max_queued_requests: int | None  # None: unbounded
    context_length: int  # longest prompt + output
    num_pages: int
    page_size: int
    prefill_budget: int  # prompt tokens computed per step
    radix_cache: bool = True
    eviction: str = "lru"
    overlap: bool = False  # launch a step before the one before it is settled
    conservativeness: float = 1.0
    schedule_policy: str = "fcfs"
    preemption_threshold: int | None = None  # a higher priority by more preempts (policy priority only); None: never
    random_seed: int = 0
    check_invariants: bool = False


def make_rows(limits: SchedulerLimits) -> Rows:
    """Slots, pages and tree of the sizes in ``limits``."""
    return Rows(
        num_slots=limits.max_running_requests,
        context_length=limits.context_length,
        num_pages=limits.num_pages,
        page_size=limits.page_size,
        keep_prefixes=limits.radix_cache,
        eviction=limits.eviction,
    )


class StepRunner(Protocol):
    def launch(self, batch: StepBatch, slots: Slots) -> LaunchedStep:
        """Start computing ``batch``; ``slots`` is read during the call only."""


class Scheduler:
    """Turns messages into batches and results into messages."""

    def __init__(self, runner: StepRunner, limits: SchedulerLimits, rows: Rows) -> None:
        self.limits = limits
        self.rows = rows
        self.slots = self.rows.slots
        self.running = Running(rows)
        self.requests = self.running.requests
        self.stats = SchedulerStats(total_tokens=limits.num_pages * limits.page_size)
        self._runner = runner
        self._waiting = WaitingQueue()
        self._launched: deque[tuple[StepBatch, LaunchedStep]] = deque()
        self._order = make_order(limits.schedule_policy, limits.random_seed)
        self._ratio = NewTokenRatio(limits.conservativeness)
        self._random = np.random.default_rng(limits.random_seed)
        self._ones = np.ones(limits.max_running_requests, np.int32)

    # -- messages ---------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self.requests or self._launched)

    def describe(self) -> str:
        """What is going on, in one line for the log."""
        steps = ", ".join(f"{len(batch.rows)} rows with {batch.num_tokens} tokens" for batch, _ in list(self._launched))
        return (
            f"{len(self.requests)} requests, {len(self._waiting)} of them waiting; steps under way: {steps or 'none'}"
        )

    def receive(self, message: ToScheduler) -> None:
        """Take in what the frontend sent."""
        for new in message.new:
            self._enqueue(new)
        for uid in message.abort:
            self._abort(uid)
        if message.flush_cache:
            if not self.requests:
                self._settle()  # the last steps of requests that have ended
            done = not self.has_work
            if done:
                self.rows.flush()
            self.running.out.flushed = (message.flush_cache, done)

    def _enqueue(self, new: NewRequest) -> None:
        limit = self.limits.max_queued_requests
        if limit is not None and len(self._waiting) >= limit + self.slots.free_slots:
            message = f"The request queue is full ({limit} requests wait). Try again later."
            self.running.out.finished.append(Finish(new.uid, "abort", message=message, status_code=503))
            return
        tokens = np.frombuffer(new.input_ids, np.int32)
        seed = new.sampling.sampling_seed
        request = Request(
            uid=new.uid,
            tokens=tokens,
            prompt_len=len(tokens),
            sampling=new.sampling,
            seed=int(self._random.integers(0, 2**63)) if seed is None else seed,
            stop_ids=new.stop_token_ids,
            namespace=new.namespace,
            priority=new.priority,
            logprobs=new.logprobs,
        )
        if new.logprobs is not None:
            request.logprob_from = max(new.logprobs.start, 1) if new.logprobs.start >= 0 else len(tokens)
        self.requests[new.uid] = request
        self._wait(request)

    def _wait(self, request: Request, *, first: bool = False) -> None:
        """Queue ``request``, ahead of the others when it is not its first time."""
        cached = self.rows.radix.matched_tokens(request.tokens[: request.cacheable], request.namespace)
        request.uncached = len(request.tokens) - cached
        if first:
            self._waiting.push_front(request)
        else:
            self._waiting.append(request)

    def _abort(self, uid: int) -> None:
        request = self.requests.pop(uid, None)
        if request is None:
            return
        if request.slot < 0:
            self._waiting.remove(request)
        else:
            self.running.leave(request)

    # -- a step -----------------------------------------------------------------------------------------------------

    def step(self) -> FromScheduler:
        """Launch the next batch and settle what is due. Call while ``has_work``, and once after other messages."""
        batch = self._schedule()
        if batch is not None:
            self._launch(batch)
        self._settle(keep=1 if self.limits.overlap and batch is not None else 0)
        if self.limits.check_invariants:
            check_invariants(self)
        return self._take_output()

    def _take_output(self) -> FromScheduler:
        out = self.running.take_output()
        stats = self.stats
        stats.running = self.slots.num_slots - self.slots.free_slots - len(self.running.leaving)
        stats.waiting = len(self._waiting)
        stats.waiting_uncached_tokens = self._waiting.uncached_tokens
        page = self.limits.page_size
        stats.cached_tokens = self.rows.radix.evictable_pages * page
        stats.used_tokens = stats.total_tokens - self.rows.room * page
        stats.evicted_tokens_total = self.rows.evicted_pages * page
        stats.new_token_ratio = self._ratio.value
        out.stats = stats
        return out

    # -- choosing ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> StepBatch | None:
        """Every row that misses one token, then prompts (running before waiting) while the budget lasts."""
        if self.limits.preemption_threshold is not None:
            self._preempt(self.limits.preemption_threshold)
        self._grow_rows()
        slots = self.slots
        rows = slots.running()
        missing = slots.missing(rows)
        single = missing == 1
        admitted, long_rows, long_lens = NO_ROWS, NO_ROWS, NO_LENS
        if len(self._waiting) or np.count_nonzero(missing) > np.count_nonzero(single):
            long = missing > 1
            admitted, long_rows, long_lens = self._schedule_prompts(rows[long], missing[long])
        singles = rows if np.count_nonzero(single) == len(rows) else rows[single]
        if len(long_rows):
            return self._batch(singles, long_rows, long_lens, admitted)
        return self._make_batch(singles, self._ones[: len(singles)], len(singles), admitted) if len(singles) else None

    def _schedule_prompts(
        self, rows: NDArray[np.int64], missing: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Share the prefill budget over ``rows`` and newcomers: (newcomers, rows that compute, tokens of each)."""
        budget = self.limits.prefill_budget
        rows, lens = _share(rows, missing, budget)
        admitted = self._admit(budget - int(lens.sum())) if len(self._waiting) else NO_ROWS
        if len(admitted):
            new_rows, new_lens = _share(admitted, self.slots.missing(admitted), budget - int(lens.sum()))
            rows, lens = np.concatenate((rows, new_rows)), np.concatenate((lens, new_lens))
        return admitted, rows, lens

    def _batch(
        self,
        singles: NDArray[np.int64],
        long_rows: NDArray[np.int64],
        long_lens: NDArray[np.int32],
        admitted: NDArray[np.int64],
    ) -> StepBatch:
        rows = np.concatenate((singles, long_rows))
        lens = np.concatenate((self._ones[: len(singles)], long_lens))
        order = np.lexsort((rows, lens > 1))
        return self._make_batch(rows[order], lens[order], int(lens.sum()), admitted)

    def _make_batch(
        self, rows: NDArray[np.int64], lens: NDArray[np.int32], num_tokens: int, admitted: NDArray[np.int64]
    ) -> StepBatch:
        slots = self.slots
        starts, known = slots.computed[rows], slots.known[rows]
        samples = (starts + lens == known) & (known < slots.limit[rows])
        wanting = slots.wants_logprobs[rows]
        logprobs = self._logprob_rows(rows, starts + lens, wanting) if np.count_nonzero(wanting) else ()
        in_prompt = starts < slots.prompt_len[rows]
        return StepBatch(
            rows=rows,
            starts=starts,
            lens=lens,
            samples=samples,
            generations=slots.generation[rows],
            version=slots.version,
            in_prompt=in_prompt if np.count_nonzero(in_prompt) else None,
            num_tokens=num_tokens,
            logprobs=logprobs,
            fresh=admitted,
        )

    def _logprob_rows(
        self, rows: NDArray[np.int64], ends: NDArray[np.int32], wanting: NDArray[np.bool_]
    ) -> tuple[LogprobRow, ...]:
        """The rows of a batch whose requests want log probabilities, and the prompt positions that are due."""
        found = []
        for i in wanting.nonzero()[0]:
            request = self.requests[int(self.slots.uid[rows[i]])]
            if request.logprobs is not None:
                last = min(int(ends[i]) + 1, request.prompt_len)
                first, request.logprob_from = min(request.logprob_from, last), max(request.logprob_from, last)
                found.append(LogprobRow(int(i), request.logprobs, first, last))
        return tuple(found)

    def _admit(self, budget: int) -> NDArray[np.int64]:
        """Move waiting requests into slots until budget, slots or pages run out. Returns the new rows."""
        admitted: list[int] = []
        for request in self._candidates():
            if budget <= 0 or not self.slots.free_slots:
                break
            if self._computed_soon(request):
                continue
            cached = self.rows.place(request, self._limit(request), self._reserve(request))
            if cached is None:
                if not self.rows.idle:
                    break
                self._fail_oversized(request)
                continue
            self._waiting.remove(request)
            self._tell_cached(request, cached)
            admitted.append(request.slot)
            budget -= len(request.tokens) - cached
        return np.sort(np.array(admitted, np.int64)) if admitted else NO_ROWS

    def _candidates(self) -> list[Request]:
        """Waiting requests in the order in which they may be admitted, as many as could be."""
        return self._order(self._waiting, self.rows.radix, self.slots.free_slots + WAITING_LOOKAHEAD)

    def _computed_soon(self, request: Request) -> bool:
        """Whether a running row is computing a prefix that ``request`` shares and that the cache lacks.

        Then waiting a few steps saves computing it twice.
        """
        slots = self.slots
        rows = slots.running()
        prompts = rows[slots.computed[rows] < slots.prompt_len[rows]]
        if not len(prompts) or not self.limits.radix_cache:
            return False
        cached = self.rows.radix.matched_tokens(request.tokens[: request.cacheable], request.namespace)
        return any(self._shared(request, int(row)) >= cached + IN_FLIGHT_PREFIX_MIN for row in prompts)

    def _shared(self, request: Request, row: int) -> int:
        """Whole-page tokens of the running prompt in ``row`` that ``request`` could read from the cache."""
        if self.requests[int(self.slots.uid[row])].namespace != request.namespace:
            return 0
        length = min(request.cacheable, int(self.slots.prompt_len[row]))
        shared = common_prefix(request.tokens[:length], self.slots.tokens[row, :length])
        return shared // self.limits.page_size * self.limits.page_size

    def _limit(self, request: Request) -> int:
        """The longest known length that the request may reach."""
        return min(request.prompt_len + request.sampling.max_new_tokens, self.limits.context_length)

    def _tell_cached(self, request: Request, cached: int) -> None:
        if request.told_cached:
            return
        request.told_cached = True
        self.running.out.started.append((request.uid, cached))
        self.stats.prompt_tokens_total += request.prompt_len
        self.stats.cached_prompt_tokens_total += cached

    def _reserve(self, request: Request) -> int:
        """Pages that running rows and ``request`` are expected to need for output. Alone, a request may take it all."""
        if self.rows.idle:
            return 0
        rows = self.slots.running()
        left = np.minimum(self.slots.limit[rows] - self.slots.known[rows], RESERVED_OUTPUT_MAX)
        newcomer = min(self._limit(request) - len(request.tokens), RESERVED_OUTPUT_MAX)
        return int(self._ratio.value * (int(left.sum()) + newcomer) / self.limits.page_size) + 1

    def _fail_oversized(self, request: Request) -> None:
        self._waiting.remove(request)
        self.running.finish(request, "abort", message=self._no_room(len(request.tokens)))

    def _no_room(self, tokens: int) -> str:
        return f"The request needs room for {tokens} tokens, but the KV cache holds {self.stats.total_tokens}."

    # -- room -------------------------------------------------------------------------------------------------------

    def _grow_rows(self) -> None:
        """Give every row that outgrew its pages one more; retract the cheapest rows when none is left."""
        while len(short := self.rows.outgrown()) > self.rows.room:
            if self._launched:
                self._settle()  # rows that end here may leave room enough
            else:
                self._retract_cheapest()
        if len(short):
            self.rows.grow(short)

    def _retract_cheapest(self) -> None:
        """Retract the row with the least output (then the youngest); the last one left is aborted instead."""
        slots = self.slots
        rows = slots.running()
        if not len(rows):
            return
        output = slots.known[rows] - slots.prompt_len[rows]
        row = int(rows[np.lexsort((-slots.uid[rows], output))[0]])
        request = self.requests[int(slots.uid[row])]
        if len(rows) == 1:
            self.running.finish(request, "abort", message=self._no_room(int(slots.known[row]) + 1))
            return
        self._retract(request)
        rows = slots.running()
        decoded = int((slots.known[rows] - slots.prompt_len[rows]).sum())
        max_new = int((slots.limit[rows] - slots.prompt_len[rows]).sum())
        self._ratio.raise_after_retraction(decoded, max_new, len(rows))

    def _retract(self, request: Request) -> None:
        """Send a running request, none of whose steps is under way, back to the head of the queue."""
        row = request.slot
        request.tokens = self.slots.tokens[row, : self.slots.known[row]].copy()
        self.running.leave(request)
        self._wait(request, first=True)
        self.stats.retracted_total += 1

    def _preempt(self, threshold: int) -> None:
        """Retract running requests of far lower priority while the first waiting one finds no room."""
        while first := self._order(self._waiting, self.rows.radix, 1):
            waiting = first[0]
            if self.rows.fits(waiting, self._reserve(waiting)):
                return
            running = [request for request in self.requests.values() if request.slot >= 0]
            victims = [request for request in running if waiting.priority - request.priority > threshold]
            if not victims:
                return
            if self._launched:
                self._settle()  # some of them may end here
            else:
                self._retract(min(victims, key=lambda request: (request.priority, -request.uid)))

    # -- launching and settling -------------------------------------------------------------------------------------

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
        self._ratio.decay()

    def _settle(self, keep: int = 0) -> None:
        """Take in the results of launched steps, oldest first, until ``keep`` are left."""
        while len(self._launched) > keep:
            batch, launched = self._launched.popleft()
            try:
                tokens = launched.tokens()
            except Exception:
                logger.exception("a step of %d rows failed; their requests are aborted", len(batch.rows))
                self.running.fail_step(batch)
                continue
            self.running.take_in(batch, launched, tokens)


def _share(
    rows: NDArray[np.int64], missing: NDArray[np.int32], budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Split ``budget`` tokens over ``rows`` in order: the first ones whole, the last one cut, the rest none."""
    before = np.cumsum(missing) - missing
    lens = np.clip(budget - before, 0, missing).astype(np.int32)
    return rows[lens > 0], lens[lens > 0]
