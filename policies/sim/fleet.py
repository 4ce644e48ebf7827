"""A fleet of simulated engines behind one or more routers: requests in, times and cache hits out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

import numpy as np
from numpy.typing import NDArray

from policies.sim.engine import Event, EventKind, SimEngine
from policies.sim.request import SimRequest
from policies.sim.routing import SimRouter

Interruption = tuple[float, Callable[[], None]]  # a time and what happens to the fleet then


@dataclass(frozen=True, slots=True)
class Result:
    """What became of each request, in the order of arrival; times in seconds, sizes in tokens."""

    arrival: NDArray[np.float64]
    ttft: NDArray[np.float64]
    prompt: NDArray[np.int64]
    cached: NDArray[np.int64]
    predicted: NDArray[np.int64]
    engine: NDArray[np.int64]
    engines: int

    @property
    def hit_rate(self) -> float:
        return float(self.cached.sum() / self.prompt.sum())

    @property
    def mean_ttft(self) -> float:
        return float(self.ttft.mean())

    def ttft_percentile(self, percent: float) -> float:
        return float(np.percentile(self.ttft, percent))

    @property
    def imbalance(self) -> float:
        """The computed prompt tokens of the busiest engine over the mean: 1 is even."""
        work = np.bincount(self.engine, weights=self.prompt - self.cached, minlength=self.engines)
        return float(work.max() / work.mean()) if work.any() else 1.0


def simulate(
    requests: Sequence[SimRequest],
    engines: Sequence[SimEngine],
    routers: Sequence[SimRouter],
    *,
    seed: int = 0,
    interruptions: Iterable[Interruption] = (),
    tick: Callable[[], None] | None = None,
) -> Result:
    """Serve ``requests`` (sorted by arrival) to the end. Each one comes in at a router drawn at random.

    ``interruptions`` are called at their times; ``tick`` once for each request, for a progress bar.
    """
    run = _Run(requests, engines, routers)
    pick = Random(seed)
    pending = sorted(interruptions, key=lambda item: item[0])
    for number, request in enumerate(requests):
        while pending and pending[0][0] <= request.arrival:
            time, interrupt = pending.pop(0)
            run.advance(time)
            interrupt()
        run.advance(request.arrival)
        run.send(number, pick.choice(routers) if len(routers) > 1 else routers[0])
        if tick is not None:
            tick()
    run.advance(float("inf"))
    return run.result()


class _Run:
    """Merges the engines' events into one order of time."""

    def __init__(
        self, requests: Sequence[SimRequest], engines: Sequence[SimEngine], routers: Sequence[SimRouter]
    ) -> None:
        self._requests = requests
        self._engines = engines
        self._router: list[SimRouter] = [routers[0]] * len(requests)
        self._queue: list[tuple[float, int]] = []  # (end of the step under way, engine), stale ones among them
        self._ttft = np.full(len(requests), np.nan)
        self._cached = np.zeros(len(requests), np.int64)
        self._predicted = np.zeros(len(requests), np.int64)
        self._engine = np.zeros(len(requests), np.int64)

    def advance(self, now: float) -> None:
        """Every event up to ``now``, told to the router that sent the request."""
        while self._queue and self._queue[0][0] <= now:
            time, index = heappop(self._queue)
            engine = self._engines[index]
            if engine.next_time != time:  # its step was cut short, and is queued under its new end
                continue
            for event in engine.advance(time):
                self._note(index, event)
            self._watch(index)

    def send(self, number: int, router: SimRouter) -> None:
        request = self._requests[number]
        index, predicted = router.send(number, request, request.arrival)
        self._router[number] = router
        self._engine[number] = index
        self._predicted[number] = predicted
        self._engines[index].submit(number, request, request.arrival)
        self._watch(index)

    def result(self) -> Result:
        arrival = np.array([request.arrival for request in self._requests])
        prompt = np.array([request.prompt_tokens for request in self._requests], np.int64)
        return Result(arrival, self._ttft, prompt, self._cached, self._predicted, self._engine, len(self._engines))

    def _watch(self, index: int) -> None:
        time = self._engines[index].next_time
        if time != float("inf"):
            heappush(self._queue, (time, index))

    def _note(self, index: int, event: Event) -> None:
        number = event.number
        if event.kind is EventKind.FIRST_TOKEN:
            self._ttft[number] = event.time - event.request.arrival
            self._cached[number] = event.cached_tokens
        self._router[number].heard(number, index, event)


def replicate(requests: Sequence[SimRequest], factor: int) -> Iterator[SimRequest]:
    """Each request ``factor`` times at one moment, with prefixes of its own: the same work for a larger fleet."""
    for request in requests:
        for copy in range(factor):
            yield SimRequest(
                request.arrival,
                tuple(segment * factor + copy for segment in request.segments),
                request.sizes,
                request.output_tokens,
                None if request.answer is None else request.answer * factor + copy,
                f"{request.session}/{copy}" if request.session else "",
            )
