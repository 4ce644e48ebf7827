"""Who waits, in which order, and who of them finds a slot and room now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.cache.radix import common_prefix
from backend.messages import SchedulerStats
from backend.scheduler.guided import Guides
from backend.scheduler.limits import SchedulerLimits
from backend.scheduler.order import make_order
from backend.scheduler.queue import Request, WaitingQueue
from backend.scheduler.ratio import RESERVED_OUTPUT_MAX, NewTokenRatio
from backend.scheduler.rows import Cached, Reserve, Rows
from backend.scheduler.running import Running
from backend.scheduler.slots import NO_ROWS

WAITING_LOOKAHEAD = 64  # waiting requests that are looked at beyond the free slots: some are put off
IN_FLIGHT_PREFIX_MIN = 32  # tokens; a shorter shared prefix is computed again rather than waited for


class Admission:
    """Owns the waiting queue and the expectation of how much output running requests will write."""

    def __init__(
        self, limits: SchedulerLimits, rows: Rows, running: Running, guides: Guides, stats: SchedulerStats
    ) -> None:
        self.waiting = WaitingQueue()
        self.ratio = NewTokenRatio(limits.conservativeness)
        self._limits = limits
        self._rows = rows
        self._slots = rows.slots
        self._running = running
        self._guides = guides
        self._stats = stats
        self._order = make_order(limits.schedule_policy, limits.random_seed)

    @property
    def full(self) -> bool:
        """As many wait as may."""
        limit = self._limits.max_queued_requests
        return limit is not None and len(self.waiting) >= limit + self._slots.free_slots

    @property
    def compiling(self) -> int:
        """Waiting requests whose grammar is not there yet."""
        guides = [request.guide for request in self.waiting if request.guide is not None]
        return sum(not guide.compiled.done() for guide in guides)

    def wait(self, request: Request, *, first: bool = False) -> None:
        """Queue ``request``, ahead of the others when it is not its first time."""
        cached = self._rows.radix.matched_tokens(request.tokens[: request.cacheable], request.namespace)
        request.uncached = len(request.tokens) - cached
        if first:
            self.waiting.push_front(request)
        else:
            self.waiting.append(request)

    def next(self) -> Request | None:
        """The request that is served first when there is room; not one whose grammar is still being compiled."""
        found = self._order(self.waiting, self._rows.radix, 1 + WAITING_LOOKAHEAD)
        return next((each for each in found if each.guide is None or each.guide.compiled.done()), None)

    def fits(self, request: Request) -> bool:
        """Whether there is room for ``request`` now."""
        return self._rows.fits(request, self._limit(request), self._reserve(request))

    def admit(self, budget: int) -> NDArray[np.int64]:
        """Move waiting requests into slots until ``budget`` tokens, slots or pages run out. Returns the new rows."""
        admitted: list[int] = []
        if budget <= 0 or not self._slots.free_slots:  # asked first: to find an order may cost more than the step
            return NO_ROWS
        for request in self._candidates():
            if budget <= 0 or not self._slots.free_slots:
                break
            if not self._may_run(request) or self._computed_soon(request):
                continue
            cached = self._rows.place(request, self._limit(request), self._reserve(request))
            if cached is None:
                if not self._rows.idle:
                    break
                self._fail_oversized(request)
                continue
            self.waiting.remove(request)
            self._guides.place(request.slot, request.guide)
            self._tell_cached(request, cached)
            admitted.append(request.slot)
            budget -= len(request.tokens) - cached.tokens
        return np.sort(np.array(admitted, np.int64)) if admitted else NO_ROWS

    def no_room(self, tokens: int) -> str:
        """Why a request that needs ``tokens`` is aborted."""
        return f"The request needs room for {tokens} tokens, but the KV cache holds {self._stats.total_tokens}."

    def _candidates(self) -> list[Request]:
        """Waiting requests in the order in which they may be admitted, as many as could be."""
        return self._order(self.waiting, self._rows.radix, self._slots.free_slots + WAITING_LOOKAHEAD)

    def wait_for_grammars(self) -> None:
        """There is nothing to compute: if that is so because grammars are being compiled, sleep until one is."""
        if len(self.waiting):
            self._guides.wait_for(list(self.waiting))

    def _may_run(self, request: Request) -> bool:
        """Whether the request's grammar is there, if it has one; one whose grammar cannot be used ends here."""
        if request.guide is None:
            return True
        if not request.guide.compiled.done():
            return False
        problem = self._guides.prepare(request, self._limit(request) - len(request.tokens) - 1)
        if problem is not None:
            self.waiting.remove(request)
            self._running.finish(request, "abort", message=problem, status_code=400)
        return problem is None

    def _computed_soon(self, request: Request) -> bool:
        """Whether a running row is computing a prefix that ``request`` shares and that the cache lacks.

        Then waiting a few steps saves computing it twice.
        """
        slots = self._slots
        rows = slots.running()
        prompts = rows[slots.computed[rows] < slots.prompt_len[rows]]
        if not len(prompts) or not self._limits.radix_cache:
            return False
        cached = self._rows.radix.matched_tokens(request.tokens[: request.cacheable], request.namespace)
        return any(self._shared(request, int(row)) >= cached + IN_FLIGHT_PREFIX_MIN for row in prompts)

    def _shared(self, request: Request, row: int) -> int:
        """Whole-page tokens of the running prompt in ``row`` that ``request`` could read from the cache."""
        slots, page = self._slots, self._limits.page_size
        if self._running.requests[int(slots.uid[row])].namespace != request.namespace:
            return 0
        length = min(request.cacheable, int(slots.prompt_len[row]))
        return common_prefix(request.tokens[:length], slots.tokens[row, :length]) // page * page

    def _limit(self, request: Request) -> int:
        """The longest known length that the request may reach."""
        return min(request.prompt_len + request.sampling.max_new_tokens, self._limits.context_length)

    def _reserve(self, request: Request) -> Reserve:
        """What running rows and ``request`` are expected to need for output. Alone, a request may take it all."""
        if self._rows.idle:
            return Reserve(0, 0.0)
        rows = self._slots.running()
        left = np.minimum(self._slots.limit[rows] - self._slots.known[rows], RESERVED_OUTPUT_MAX)
        newcomer = min(self._limit(request) - len(request.tokens), RESERVED_OUTPUT_MAX)
        share = self.ratio.value
        return Reserve(int(share * (int(left.sum()) + newcomer) / self._limits.page_size) + 1, share)

    def _fail_oversized(self, request: Request) -> None:
        self.waiting.remove(request)
        self._running.finish(request, "abort", message=self.no_room(len(request.tokens)))

    def _tell_cached(self, request: Request, cached: Cached) -> None:
        if request.told_cached:
            return
        request.told_cached = True
        of_prompt = min(cached.tokens, request.prompt_len)
        self._running.out.started.append((request.uid, of_prompt))
        if cached.from_host:
            self._running.out.fetched.append((request.uid, min(cached.from_host, of_prompt)))
        self._running.tell(request.uid, request.tokens[request.prompt_len :].tolist())  # a grammar's first words
        self._stats.prompt_tokens_total += request.prompt_len
        self._stats.cached_prompt_tokens_total += of_prompt
