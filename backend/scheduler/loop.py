"""The scheduler: continuous batching by one rule — a step computes some of each row's missing tokens.

Nothing here depends on a clock, on identity or on hash order: the same messages give the same batches.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.cache.pages import PageAllocator, Pages
from backend.cache.radix import RadixCache
from backend.messages import Finish, FromScheduler, NewRequest, SchedulerStats, ToScheduler
from backend.scheduler.admission import RESERVED_OUTPUT_MAX, NewTokenRatio
from backend.scheduler.batch import StepBatch
from backend.scheduler.invariants import check_invariants
from backend.scheduler.queue import Request, WaitingQueue
from backend.scheduler.slots import Slots

NO_ROWS = np.empty(0, np.int64)


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
    conservativeness: float = 1.0
    random_seed: int = 0
    check_invariants: bool = False


class LaunchedStep(Protocol):
    def tokens(self) -> NDArray[np.int32]:
        """Wait for the step; one token per row of its batch (meaningless where the row did not sample)."""


class StepRunner(Protocol):
    def launch(self, batch: StepBatch, slots: Slots) -> LaunchedStep:
        """Start computing ``batch``; ``slots`` is read during the call only."""


class Scheduler:
    """Owns slots, pages and the radix tree; turns messages into batches and results into messages."""

    def __init__(self, runner: StepRunner, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.slots = Slots(limits.max_running_requests, limits.context_length, limits.page_size)
        self.pages = PageAllocator(limits.num_pages)
        self.radix = RadixCache(limits.page_size)
        self.requests: dict[int, Request] = {}  # by uid: waiting, running
        self.leaving: dict[int, Request] = {}  # by slot: over, but a launched step still refers to the row
        self.stats = SchedulerStats(total_tokens=limits.num_pages * limits.page_size)
        self._runner = runner
        self._waiting = WaitingQueue()
        self._launched: deque[tuple[StepBatch, LaunchedStep]] = deque()
        self._ratio = NewTokenRatio(limits.conservativeness)
        self._random = np.random.default_rng(limits.random_seed)
        self._out = FromScheduler()

    # -- messages ---------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self.requests or self._launched)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def receive(self, message: ToScheduler) -> None:
        """Take in what the frontend sent."""
        for new in message.new:
            self._enqueue(new)
        for uid in message.abort:
            self._abort(uid)
        if message.flush_cache:
            done = not self.has_work
            if done:
                self.pages.release(self.radix.reset())
            self._out.flushed = (message.flush_cache, done)

    def _enqueue(self, new: NewRequest) -> None:
        limit = self.limits.max_queued_requests
        if limit is not None and len(self._waiting) >= limit:
            message = f"The request queue is full ({limit} requests wait). Try again later."
            self._out.finished.append(Finish(new.uid, "abort", message=message, status_code=503))
            return
        tokens = np.frombuffer(new.input_ids, np.int32)
        seed = new.sampling.sampling_seed
        if seed is None:
            seed = int(self._random.integers(0, 2**63))
        request = Request(new.uid, tokens, len(tokens), new.sampling, seed, new.stop_token_ids, new.namespace)
        self.requests[new.uid] = request
        self._waiting.append(request)

    def _abort(self, uid: int) -> None:
        request = self.requests.pop(uid, None)
        if request is None:
            return
        if request.slot < 0:
            self._waiting.remove(request)
        else:
            self._leave(request)

    # -- a step -----------------------------------------------------------------------------------------------------

    def step(self) -> FromScheduler:
        """Launch the next batch and settle what is due. Call while ``has_work``, and once after other messages."""
        batch = self._schedule()
        if batch is not None:
            self._launch(batch)
        self._settle_all()
        if self.limits.check_invariants:
            check_invariants(self)
        return self._take_output()

    def _take_output(self) -> FromScheduler:
        out, self._out = self._out, FromScheduler()
        stats = self.stats
        stats.running = int((self.slots.uid >= 0).sum())
        stats.waiting = len(self._waiting)
        stats.waiting_uncached_tokens = sum(len(request.tokens) for request in self._waiting)
        page = self.limits.page_size
        stats.cached_tokens = self.radix.evictable_pages * page
        stats.used_tokens = stats.total_tokens - (self.pages.free_pages + self.radix.evictable_pages) * page
        stats.new_token_ratio = self._ratio.value
        out.stats = stats
        return out

    # -- choosing ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> StepBatch | None:
        """Every row that misses one token, then prompts (running before waiting) while the budget lasts."""
        self._grow_rows()
        slots = self.slots
        rows = slots.running()
        missing = slots.missing(rows)
        long = missing > 1
        budget = self.limits.prefill_budget
        long_rows, long_lens = _share(rows[long], missing[long], budget)
        admitted = self._admit(budget - int(long_lens.sum()))
        if len(admitted):
            rest = slots.missing(admitted)
            more_rows, more_lens = _share(admitted, rest, budget - int(long_lens.sum()))
            long_rows, long_lens = np.concatenate((long_rows, more_rows)), np.concatenate((long_lens, more_lens))
        short_rows = rows[missing == 1]
        batch_rows = np.concatenate((short_rows, long_rows))
        if not len(batch_rows):
            return None
        lens = np.concatenate((np.ones(len(short_rows), np.int32), long_lens)).astype(np.int32)
        order = np.lexsort((batch_rows, lens > 1))
        batch_rows, lens = batch_rows[order], lens[order]
        starts = slots.computed[batch_rows]
        known = slots.known[batch_rows]
        samples = (starts + lens == known) & (known < slots.limit[batch_rows])
        return StepBatch(batch_rows, starts, lens, samples, slots.generation[batch_rows])

    def _admit(self, budget: int) -> NDArray[np.int64]:
        """Move waiting requests into slots until budget, slots or pages run out. Returns the new rows."""
        admitted: list[int] = []
        while budget > 0 and len(self._waiting) and self.slots.free_slots:
            request = self._waiting.head()
            if not self._place(request):
                if self.slots.free_slots == self.limits.max_running_requests:
                    self._fail_oversized(request)
                    continue
                break
            self._waiting.pop()
            admitted.append(request.slot)
            budget -= len(request.tokens) - int(self.slots.computed[request.slot])
        return np.sort(np.array(admitted, np.int64)) if admitted else NO_ROWS

    def _place(self, request: Request) -> bool:
        """Give ``request`` a slot, its cached prefix and pages for its known tokens; False when there is no room."""
        slots, page = self.slots, self.limits.page_size
        tokens = request.tokens
        # At least one token is computed, or there would be no logits to sample from.
        match = self.radix.match(tokens[:-1], request.namespace)
        self.radix.lock(match.node)
        needed = -(-len(tokens) // page) - len(match.pages)
        limit = min(request.limit, self.limits.context_length)
        room = self.pages.free_pages + self.radix.evictable_pages - needed
        busy = slots.free_slots < self.limits.max_running_requests
        if room < (self._reserved_pages(limit - len(tokens)) if busy else 0):
            self.radix.unlock(match.node)
            return False
        slot = slots.occupy(request.uid, tokens, request.prompt_len, limit)
        slots.set_sampling(slot, request.sampling, request.seed, request.stop_ids)
        slots.append_pages(slot, match.pages)
        slots.tree_pages[slot] = len(match.pages)
        slots.append_pages(slot, self._alloc(needed))
        slots.computed[slot] = len(match.pages) * page
        request.slot, request.node = slot, match.node
        self._tell_cached(request, len(match.pages) * page)
        return True

    def _tell_cached(self, request: Request, cached: int) -> None:
        if request.told_cached:
            return
        request.told_cached = True
        self._out.started.append((request.uid, cached))
        self.stats.prompt_tokens_total += request.prompt_len
        self.stats.cached_prompt_tokens_total += cached

    def _reserved_pages(self, newcomer: int) -> int:
        """Pages that running rows, and a newcomer with ``newcomer`` output tokens to go, are expected to need."""
        rows = self.slots.running()
        left = np.minimum(self.slots.limit[rows] - self.slots.known[rows], RESERVED_OUTPUT_MAX)
        tokens = self._ratio.value * (int(left.sum()) + min(newcomer, RESERVED_OUTPUT_MAX))
        return int(tokens / self.limits.page_size) + 1

    def _fail_oversized(self, request: Request) -> None:
        self._waiting.pop()
        self._finish(request, "abort", message=self._no_room(len(request.tokens)))

    def _no_room(self, tokens: int) -> str:
        return f"The request needs room for {tokens} tokens, but the KV cache holds {self.stats.total_tokens}."

    # -- pages ------------------------------------------------------------------------------------------------------

    def _grow_rows(self) -> None:
        """Give every row that outgrew its pages one more; retract the cheapest rows when none is left."""
        slots = self.slots
        while True:
            rows = slots.running()
            short = rows[(slots.missing(rows) > 0) & (slots.known[rows] > slots.pages[rows] * self.limits.page_size)]
            if len(short) <= self.pages.free_pages + self.radix.evictable_pages:
                break
            self._settle_all()
            self._retract_cheapest()
        if len(short):
            slots.page_table[short, slots.pages[short]] = self._alloc(len(short))
            slots.pages[short] += 1

    def _alloc(self, count: int) -> Pages:
        missing = count - self.pages.free_pages
        if missing > 0:
            freed = self.radix.evict(missing)
            self.stats.evicted_tokens_total += len(freed) * self.limits.page_size
            self.pages.release(freed)
        return self.pages.alloc(count)

    def _retract_cheapest(self) -> None:
        """Send the row with the least output (then the youngest) back to the queue; the last one is aborted instead."""
        slots = self.slots
        rows = slots.running()
        if not len(rows):
            return
        output = slots.known[rows] - slots.prompt_len[rows]
        row = int(rows[np.lexsort((-slots.uid[rows], output))[0]])
        request = self.requests[int(slots.uid[row])]
        if len(rows) == 1:
            self._finish(request, "abort", message=self._no_room(int(slots.known[row]) + 1))
            return
        request.tokens = slots.tokens[row, : slots.known[row]].copy()
        self._leave(request)
        self._waiting.push_front(request)
        self.stats.retracted_total += 1
        rows = slots.running()
        output_left = int((slots.known[rows] - slots.prompt_len[rows]).sum())
        max_new = int((slots.limit[rows] - slots.prompt_len[rows]).sum())
        self._ratio.raise_after_retraction(output_left, max_new, len(rows))

    # -- launching and settling -------------------------------------------------------------------------------------

    def _launch(self, batch: StepBatch) -> None:
        slots = self.slots
        launched = self._runner.launch(batch, slots)
        slots.computed[batch.rows] += batch.lens
        slots.known[batch.rows] += batch.samples
        slots.in_flight[batch.rows] += 1
        self._launched.append((batch, launched))
        decodes = int((batch.starts >= slots.prompt_len[batch.rows]).sum())
        self.stats.decode_tokens_total += decodes
        self.stats.prefill_tokens_total += batch.num_tokens - decodes
        self._ratio.decay()

    def _settle_all(self) -> None:
        while self._launched:
            batch, launched = self._launched.popleft()
            self._settle(batch, launched.tokens())

    def _settle(self, batch: StepBatch, tokens: NDArray[np.int32]) -> None:
        """Take in the results of one step: tokens, finished rows, prompts to share."""
        slots = self.slots
        rows, ends = batch.rows, batch.starts + batch.lens
        slots.in_flight[rows] -= 1
        # Written for leaving rows too: their pages enter the tree under these tokens.
        slots.tokens[rows[batch.samples], ends[batch.samples]] = tokens[batch.samples]
        live = slots.generation[rows] == batch.generations
        new = live & batch.samples
        self._out.uids.extend(slots.uid[rows[new]].tolist())
        self._out.tokens.extend(tokens[new].tolist())

        stopped = new & (slots.stop_ids[rows] == tokens[:, None]).any(axis=1)
        full = live & ~stopped & (ends + batch.samples >= slots.limit[rows])
        prompts = live & (batch.starts < slots.prompt_len[rows]) & (ends >= slots.prompt_len[rows])
        for i in np.flatnonzero(prompts & ~stopped & ~full):
            self._share_prompt(self.requests[int(slots.uid[rows[i]])], int(ends[i]))
        for i in np.flatnonzero(stopped):
            self._finish(self.requests[int(slots.uid[rows[i]])], "stop", matched=int(tokens[i]))
        for i in np.flatnonzero(full):
            self._finish(self.requests[int(slots.uid[rows[i]])], "length")
        for slot in [slot for slot in self.leaving if not slots.in_flight[slot]]:
            self._vacate(slot, self.leaving.pop(slot))

    # -- giving back ------------------------------------------------------------------------------------------------

    def _finish(self, request: Request, kind: str, matched: int = -1, message: str = "") -> None:
        del self.requests[request.uid]
        self._leave(request)
        self._out.finished.append(Finish(request.uid, kind, matched, message))

    def _leave(self, request: Request) -> None:
        """End the request's run, whatever the reason. Idempotent.

        The row is given back when no launched step uses it.
        """
        slot = request.slot
        if slot < 0:
            return
        self.slots.stop_running(slot)
        request.slot = -1
        if self.slots.in_flight[slot]:
            self.leaving[slot] = request
        else:
            self._vacate(slot, request)

    def _vacate(self, slot: int, request: Request) -> None:
        slots = self.slots
        if self.limits.radix_cache:
            self._share_prefix(slot, request, int(slots.computed[slot]))
        self.pages.release(slots.row_pages(slot)[slots.tree_pages[slot] :])
        if request.node is not None:
            self.radix.unlock(request.node)
            request.node = None
        slots.vacate(slot)

    def _share_prompt(self, request: Request, computed: int) -> None:
        if self.limits.radix_cache:
            self._share_prefix(request.slot, request, computed)

    def _share_prefix(self, slot: int, request: Request, computed: int) -> None:
        """Hand the row's full pages to the tree; the row continues on the tree's pages, its duplicates are released."""
        slots, page = self.slots, self.limits.page_size
        count = computed // page
        own = slots.row_pages(slot)[:count].copy()
        shared = self.radix.insert(slots.tokens[slot, : count * page], own, request.namespace)
        self.radix.lock(shared.node)
        if request.node is not None:
            self.radix.unlock(request.node)
        request.node = shared.node
        self.pages.release(own[own != shared.pages])
        slots.page_table[slot, :count] = shared.pages
        slots.tree_pages[slot] = count


def _share(
    rows: NDArray[np.int64], missing: NDArray[np.int32], budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Split ``budget`` tokens over ``rows`` in order: the first ones whole, the last one cut, the rest none."""
    before = np.cumsum(missing) - missing
    lens = np.clip(budget - before, 0, missing).astype(np.int32)
    return rows[lens > 0], lens[lens > 0]
