"""One simulated engine: first come, first served, chunked prefill beside the running decodes, a prefix cache.

A step computes at most ``chunk_tokens`` of prompts and one token of each running request. Steps without prompt work are
all alike, so they are taken in one leap to the next one that ends a request; a request that arrives meanwhile waits for
the end of the step under way, as it would in an engine.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from typing import NamedTuple

from policies.sim.cache import PrefixCache
from policies.sim.request import SimRequest


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Size and speed of an engine; times in milliseconds."""

    kv_tokens: int
    prefill_tokens_per_s: float = 10_000.0
    chunk_tokens: int = 4096
    step_ms: float = 10.0  # a step that decodes
    sequence_ms: float = 0.2  # each sequence in it
    block_tokens: int = 16


class EventKind(Enum):
    FIRST_TOKEN = 0
    DONE = 1


class Event(NamedTuple):
    """Something that the router sees of a request."""

    time: float
    kind: EventKind
    number: int  # as given to submit
    request: SimRequest
    cached_tokens: int


class _Job:
    """A request in the engine. ``expected`` is its prompt work as estimated when it came."""

    __slots__ = ("cache", "cached", "expected", "number", "remaining", "request")

    def __init__(self, number: int, request: SimRequest, expected: int, cache: PrefixCache) -> None:
        self.number = number
        self.request = request
        self.cache = cache  # the one that its blocks are in
        self.expected = expected
        self.cached = 0
        self.remaining = request.prompt_tokens


class SimEngine:
    """Give it requests with :meth:`submit`, then :meth:`advance` time and read what happened."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self._cache = PrefixCache(spec.kv_tokens, spec.block_tokens)
        self._waiting: deque[_Job] = deque()
        self._current: _Job | None = None  # admitted, its prompt partly computed
        self._running: list[tuple[int, int, _Job]] = []  # heap by the step that ends the request
        self._promised: Counter[int] = Counter()  # segments that jobs ahead will have computed
        self._backlog = 0  # prompt tokens not in any step yet
        self._steps = 0
        self._order = 0
        self._began = 0.0  # of the step, or of the leap of equal steps, under way
        self._ends = math.inf
        self._leap = 0
        self._computed: list[_Job] = []  # whose prompt ends with this step
        self._prefilling = False

    @property
    def next_time(self) -> float:
        """When the step or leap under way ends; infinite when idle."""
        return self._ends

    @property
    def requests(self) -> int:
        """Requests not done yet."""
        return len(self._waiting) + (self._current is not None) + len(self._computed) + len(self._running)

    @property
    def decodes(self) -> int:
        return len(self._running)

    @property
    def backlog(self) -> int:
        """Prompt tokens that are in no step yet."""
        return self._backlog

    def wait_seconds(self, now: float) -> float:
        """Time until a prompt that came now would begin to be computed."""
        under_way = max(0.0, self._ends - now) if self._prefilling else 0.0
        return under_way + self._backlog / self.spec.prefill_tokens_per_s

    def cached_tokens(self, request: SimRequest) -> int:
        """What of the prompt would be cached when its turn came, if nothing is evicted before."""
        matched = self._cache.match(request.segments, request.sizes)
        promised = 0
        for segment, size in zip(request.segments, request.sizes, strict=True):
            if segment not in self._promised:
                break
            promised += size
        promised = min(promised, request.prompt_tokens - 1) // self.spec.block_tokens * self.spec.block_tokens
        return max(matched, promised)

    def submit(self, number: int, request: SimRequest, now: float) -> None:
        """``request`` arrives; its events will carry ``number``. Raises ``ValueError`` when it could never fit."""
        if request.prompt_tokens + request.output_tokens > self.spec.kv_tokens:
            total = request.prompt_tokens + request.output_tokens
            raise ValueError(f"a request of {total} tokens does not fit into {self.spec.kv_tokens} tokens of KV")
        job = _Job(number, request, request.prompt_tokens - self.cached_tokens(request), self._cache)
        self._waiting.append(job)
        self._promised.update(request.segments)
        self._backlog += job.expected
        if self._ends == math.inf:
            self._start_step(now)
        elif self._leap > 1:
            self._cut_leap(now)

    def flush(self) -> None:
        """Lose the cache, as a restart does; requests under way go on."""
        self._cache = PrefixCache(self.spec.kv_tokens, self.spec.block_tokens)
        if self._current is not None:  # begins anew, at the head of the queue
            number, request = self._current.number, self._current.request
            self._backlog += request.prompt_tokens - self._current.remaining
            self._waiting.appendleft(_Job(number, request, request.prompt_tokens, self._cache))
            self._current = None

    def advance(self, now: float) -> list[Event]:
        """Everything that happens up to and including ``now``, in order."""
        events: list[Event] = []
        while self._ends <= now and self._ends != math.inf:
            self._end_step(events)
            self._start_step(self._ends)
        return events

    def _start_step(self, now: float) -> None:
        spec = self.spec
        budget = spec.chunk_tokens
        while budget and (job := self._current or self._admit()) is not None:
            part = min(job.remaining, budget)
            budget -= part
            job.remaining -= part
            self._backlog -= part
            self._current = job
            if not job.remaining:
                self._current = None
                self._prompt_done(job)
        tokens = spec.chunk_tokens - budget
        decodes = len(self._running)
        seconds = tokens / spec.prefill_tokens_per_s
        if decodes:
            seconds += (spec.step_ms + spec.sequence_ms * decodes) / 1000.0
        self._began = now
        self._prefilling = tokens > 0
        self._leap = 1 if tokens or not decodes else self._running[0][0] - self._steps
        self._ends = now + seconds * self._leap if tokens or decodes else math.inf

    def _admit(self) -> _Job | None:
        if not self._waiting:
            return None
        job = self._waiting[0]
        request = job.request
        cached = self._cache.acquire(request.segments, request.sizes, request.output_tokens)
        if cached is None:
            return None
        self._waiting.popleft()
        job.cache = self._cache
        job.cached = cached
        job.remaining = request.prompt_tokens - cached
        self._backlog += job.remaining - job.expected
        return job

    def _prompt_done(self, job: _Job) -> None:
        """The last part of a prompt is in the step that starts: those after it in the step can use its blocks."""
        request = job.request
        job.cache.commit(request.segments, request.sizes)
        self._promised.subtract(request.segments)
        for segment in request.segments:
            if not self._promised[segment]:
                del self._promised[segment]
        self._computed.append(job)

    def _end_step(self, events: list[Event]) -> None:
        time = self._ends
        self._steps += self._leap
        while self._running and self._running[0][0] <= self._steps:
            self._finish(heappop(self._running)[2], time, events)
        for job in self._computed:
            events.append(Event(time, EventKind.FIRST_TOKEN, job.number, job.request, job.cached))
            if job.request.output_tokens == 1:
                self._finish(job, time, events)
                continue
            self._order += 1
            heappush(self._running, (self._steps + job.request.output_tokens - 1, self._order, job))
        self._computed.clear()

    def _finish(self, job: _Job, time: float, events: list[Event]) -> None:
        request = job.request
        job.cache.release(request.segments, request.output_tokens, request.answer)
        events.append(Event(time, EventKind.DONE, job.number, request, job.cached))

    def _cut_leap(self, now: float) -> None:
        """Stop at the end of the decode step in which ``now`` lies."""
        step = (self._ends - self._began) / self._leap
        steps = min(max(1, math.ceil((now - self._began) / step)), self._leap)
        self._ends = self._began + step * steps
        self._leap = steps
