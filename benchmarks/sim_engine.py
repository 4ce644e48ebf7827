"""The simulated engine on a real clock: prompts in, times of first token and end out. No model, no GPU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from policies.sim import EngineSpec, Event, EventKind, SimEngine, SimRequest


class _Flight:
    """A request in the engine: ``first`` and ``done`` are set by its events."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.done = asyncio.Event()
        self.cached = 0


class LiveEngine:
    """Advances a :class:`SimEngine` as time goes by. A client that leaves does not shorten its request.

    ``speed``: simulated seconds in a real one. ``stream_interval``: tokens between two signs of life of an answer,
    after the first token.
    """

    def __init__(self, spec: EngineSpec, speed: float = 1.0, stream_interval: int = 1) -> None:
        if speed <= 0 or stream_interval < 1:
            raise ValueError(f"speed and stream_interval must be above 0, got {speed} and {stream_interval}")
        self.spec = spec
        self._speed = speed
        self._interval = stream_interval
        self._engine = SimEngine(spec)
        self._flights: dict[int, _Flight] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return asyncio.get_running_loop().time() * self._speed

    @property
    def running(self) -> int:
        return self._engine.requests

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens that are in no step yet."""
        return self._engine.backlog

    @property
    def decodes(self) -> int:
        return self._engine.decodes

    def flush(self) -> None:
        self._engine.flush()

    async def run(self, request: SimRequest) -> AsyncIterator[tuple[int, int]]:
        """(tokens that are ready, cached tokens of the prompt), each time that there are more."""
        now = self.now
        number, flight = self._count, _Flight()
        self._count += 1
        self._advance(now)
        self._engine.submit(number, request, now)
        self._flights[number] = flight
        self._advance(now)
        await flight.first.wait()
        for ready in range(1, request.output_tokens, self._interval):
            yield ready, flight.cached
            await self._pass(flight, min(self._interval, request.output_tokens - ready))
        await flight.done.wait()
        yield request.output_tokens, flight.cached

    async def _pass(self, flight: _Flight, steps: int) -> None:
        """As long as so many decode steps take now, unless the engine is done before."""
        spec = self.spec
        seconds = steps * (spec.step_ms + spec.sequence_ms * self._engine.decodes) / 1000 / self._speed
        if not flight.done.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await flight.done.wait()
            except TimeoutError:
                return

    def _advance(self, now: float) -> None:
        for event in self._engine.advance(now):
            self._happened(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._engine.next_time < float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._engine.next_time / self._speed, lambda: self._advance(self.now))

    def _happened(self, event: Event) -> None:
        flight = self._flights.get(event.number)
        if flight is None:
            return
        if event.kind is EventKind.FIRST_TOKEN:
            flight.cached = event.cached_tokens
            flight.first.set()
        else:
            flight.first.set()
            flight.done.set()
            del self._flights[event.number]
