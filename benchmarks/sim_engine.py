"""The simulated engine on a real clock: prompts in, times of first token and end out. No model, no GPU."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from zlib import crc32

from policies.sim import EngineSpec, Event, EventKind, SimEngine, SimRequest

BLOCK = 16  # tokens that share one segment of the simulated prefix cache
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TOKEN = re.compile(r"\s*\S+")


def tokens_of(text: str) -> list[str]:
    """The simulated tokenizer: a token is a word with the space before it."""
    return _TOKEN.findall(text)


def answer_word(prompt: str, position: int) -> str:
    """The answer's token at ``position``: it depends on the prompt, so that answers can be told apart and checked."""
    return f" {WORDS[(crc32(prompt.encode()) + position) % len(WORDS)]}"


def sim_request(now: float, prompt: list[str], output_tokens: int) -> SimRequest:
    """The prompt as a chain of blocks, each named by all the text up to its end."""
    segments, sizes, name = [], [], 0
    for begin in range(0, len(prompt), BLOCK):
        block = prompt[begin : begin + BLOCK]
        name = crc32("".join(block).encode(), name) | (len(segments) + 1) << 32
        segments.append(name)
        sizes.append(len(block))
    return SimRequest(now, tuple(segments), tuple(sizes), output_tokens)


class _Flight:
    """A request in the engine: ``first`` and ``done`` are set by its events."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.done = asyncio.Event()
        self.cached = 0


class LiveEngine:
    """Advances a :class:`SimEngine` as time goes by. A client that leaves does not shorten its request."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self._engine = SimEngine(spec)
        self._flights: dict[int, _Flight] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        return self._engine.requests

    def flush(self) -> None:
        self._engine.flush()

    async def run(self, prompt: list[str], output_tokens: int) -> AsyncIterator[tuple[int, int]]:
        """(tokens that are ready, cached tokens of the prompt), each time that there are more."""
        now = asyncio.get_running_loop().time()
        number, flight = self._count, _Flight()
        self._count += 1
        self._advance(now)
        self._engine.submit(number, sim_request(now, prompt, output_tokens), now)
        self._flights[number] = flight
        self._advance(now)
        await flight.first.wait()
        for ready in range(1, output_tokens):
            yield ready, flight.cached
            await self._next_token(flight)
        await flight.done.wait()
        yield output_tokens, flight.cached

    async def _next_token(self, flight: _Flight) -> None:
        """As long as a decode step takes now, unless the engine is done before."""
        spec = self.spec
        seconds = (spec.step_ms + spec.sequence_ms * self._engine.decodes) / 1000
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
            self._timer = loop.call_at(self._engine.next_time, lambda: self._advance(loop.time()))

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
