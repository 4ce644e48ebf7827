"""The asyncio side of a request: submit it, wait for what each step brings, abort it when nobody waits any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Protocol

from backend.frontend.client import SchedulerClient
from backend.frontend.errors import RequestError
from backend.frontend.generation import Generation
from backend.frontend.intake import ChatPrompt, Intake, Prompt, RequestOptions, TextPair, check_sampling, fan_out
from backend.frontend.output import OutputProcessor, StepResult
from backend.frontend.request import Listener, RequestState
from backend.frontend.timeouts import Timeouts
from backend.grammar import GrammarBusy, GrammarChecker, GrammarError
from backend.grammar.errors import NO_GRAMMARS
from backend.messages import FromScheduler, NewRequest, ProfileCommand, SchedulerStats

LONG_PROMPT_CHARS = 8192  # longer ones are tokenised off the event loop
TOKENIZER_THREADS = 2
MOST_REQUESTS = 16_384  # of one call: its prompts, each as often as it has answers
HEARD_SECONDS = 5.0  # a scheduler that spoke within them is taken to be alive
ABORT_MESSAGE = "Aborted by a client's request."


class Observer(Protocol):
    """Who wants to know how requests fare (the metrics)."""

    def on_step(self, result: StepResult, stats: SchedulerStats, now: float) -> None: ...

    def on_abort(self, state: RequestState) -> None: ...


class Frontend:
    """Owns the running requests of one scheduler."""

    def __init__(
        self,
        intake: Intake,
        client: SchedulerClient,
        observer: Observer,
        clock: Callable[[], float] = time.perf_counter,
        grammars: GrammarChecker | None = None,
    ) -> None:
        """``grammars`` is the caller's to close; None refuses constraints."""
        self.intake = intake
        self._grammars = grammars
        self.stats = SchedulerStats()
        self._client = client
        self._observer = observer
        self._clock = clock
        self._outputs = OutputProcessor()
        self._pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix="tokenize")
        self._failure: RequestError | None = None
        self._fewer = asyncio.Event()  # set when a request ended
        self._heard = asyncio.Event()  # set with every message
        self._heard_at = float("-inf")
        self._produced = asyncio.Event()  # set with every message that brings tokens
        self._going = asyncio.Event()  # cleared: new requests wait until generation is resumed
        self._going.set()

    @property
    def unfinished(self) -> int:
        return len(self._outputs)

    async def submit(self, prompts: Sequence[Prompt], options: Sequence[RequestOptions]) -> Generation:
        """Start one request for each prompt and each of its ``n``; all of them are checked before any is started."""
        arrived = self._clock()
        for option in options:
            try:
                check_sampling(option.sampling)
            except RequestError as error:
                raise error.renamed(option.names) from None
        _check_count(options)
        accepted = self._accept(await self._tokenize_all(prompts, options), options, arrived)
        await self._check_grammars(options)
        await self._going.wait()
        if self._failure is not None:
            raise self._failure
        try:
            self._client.submit([message for _, message in accepted])
        except (TypeError, ValueError, OverflowError) as error:  # a lone surrogate, a number beyond 64 bits
            raise RequestError(f"The request cannot be passed to the scheduler: {error}") from None
        generation = Generation([state for state, _ in accepted], self.release)
        for state in generation.states:
            state.listener = generation
            self._outputs.add(state)
        return generation

    def _accept(
        self, prompts: Sequence[list[int]], options: Sequence[RequestOptions], arrived: float
    ) -> list[tuple[RequestState, NewRequest]]:
        """One request for each prompt and each of its ``n``. Errors name fields as the client does."""
        accepted: list[tuple[RequestState, NewRequest]] = []
        for ids, option in zip(prompts, options, strict=True):
            try:
                for each in fan_out(option):
                    accepted.append(self.intake.accept(ids, each, len(accepted), arrived))
            except RequestError as error:
                raise error.renamed(option.names) from None
        return accepted

    async def _check_grammars(self, options: Sequence[RequestOptions]) -> None:
        """Raise :class:`RequestError` for a grammar that cannot be compiled within the limits."""
        for spec in dict.fromkeys(option.grammar for option in options if option.grammar is not None):
            if self._grammars is None:
                raise RequestError(NO_GRAMMARS)
            try:
                await self._grammars.check(spec)
            except GrammarBusy as error:
                raise RequestError(str(error), HTTPStatus.SERVICE_UNAVAILABLE) from None
            except GrammarError as error:
                raise RequestError(str(error), param=spec.field) from None

    async def _tokenize_all(self, prompts: Sequence[Prompt], options: Sequence[RequestOptions]) -> list[list[int]]:
        """The ids of each prompt; what is long, alone or together, is worked on beside the event loop, part by part."""
        found: list[list[int]] = []
        loop = asyncio.get_running_loop()
        for part, short in _parts(list(zip(prompts, options, strict=True))):
            if short:
                found += self._ids_of(part)
            else:
                found += await loop.run_in_executor(self._pool, self._ids_of, part)
        return found

    def _ids_of(self, part: Sequence[tuple[Prompt, RequestOptions]]) -> list[list[int]]:
        ids = []
        for prompt, option in part:
            try:
                ids.append(self.intake.tokenize(prompt))
            except RequestError as error:
                raise error.renamed(option.names) from None
        return ids

    async def tokenize(self, prompt: Prompt, add_special_tokens: bool | None = None) -> list[int]:
        """The ids of a prompt; long ones are worked on beside the event loop."""
        if _characters(prompt) <= LONG_PROMPT_CHARS:
            return self.intake.tokenize(prompt, add_special_tokens)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.intake.tokenize, prompt, add_special_tokens)

    def dispatch(self, message: FromScheduler) -> None:
        """Apply one message of the scheduler and wake those who wait for it."""
        now = self._clock()
        self.stats = message.stats
        self._heard_at = now
        self._heard.set()
        if message.uids:
            self._produced.set()
        result = self._outputs.process(message, now)
        for uid in result.abort:
            self._client.abort(uid)
        self._tell(result)
        self._observer.on_step(result, message.stats, now)
        self._fewer.set()

    def _tell(self, result: StepResult) -> None:
        """Hand what moved to those who wait for it, once for each call."""
        told: list[Listener] = []
        for update in result.updates:
            state = update.state
            listener = state.listener
            if listener is None or listener.offer(state):
                continue
            if state.finish is not None:
                state.listener = None
            if listener.notify(state):
                told.append(listener)
        for listener in told:
            listener.deliver()

    def release(self, generation: Generation) -> None:
        """Abort what is unfinished of a call that nobody waits for any more."""
        for state in generation.states:
            if self._outputs.remove(state.uid) is not None:
                state.listener = None
                self._client.abort(state.uid)
                self._observer.on_abort(state)
        self._fewer.set()

    async def alive(self) -> None:
        """Wait for a word of the scheduler, which answers every message; not when it spoke lately."""
        if self._clock() - self._heard_at < HEARD_SECONDS:
            return
        self._heard.clear()
        self._client.ping()
        await self._heard.wait()

    async def produced(self) -> None:
        """Wait for the next token of any request."""
        self._produced.clear()
        await self._produced.wait()

    async def idle(self) -> None:
        """Wait until no request is running."""
        while self.unfinished:
            self._fewer.clear()
            await self._fewer.wait()

    def abort(self, rid_prefix: str | None) -> int:
        """End the requests whose id starts with the prefix (None: all) with what they have. Returns how many."""
        chosen = [state for state in self._outputs.running() if rid_prefix is None or state.rid.startswith(rid_prefix)]
        for state in chosen:
            self._end(state, ABORT_MESSAGE)
        return len(chosen)

    async def enforce(self, timeouts: Timeouts) -> None:
        """End requests that wait or run too long, with an error, until cancelled."""
        while timeouts.interval is not None:
            await asyncio.sleep(timeouts.interval)
            now = self._clock()
            for state in self._outputs.running():
                if (message := timeouts.verdict(state, now)) is not None:
                    self._end(state, message, HTTPStatus.SERVICE_UNAVAILABLE)

    def _end(self, state: RequestState, message: str, status_code: int | None = None) -> None:
        """Abort a request; who waits for it gets what it has, or with a status an error."""
        listener, state.listener = state.listener, None
        self._outputs.abort(state.uid, message, self._clock(), status_code)
        self._client.abort(state.uid)
        self._observer.on_abort(state)
        self._fewer.set()
        if listener is not None:
            listener.notify(state)
            listener.deliver()

    @property
    def paused(self) -> bool:
        return not self._going.is_set()

    async def pause(self, mode: str) -> None:
        """Generate nothing more and hold new requests back until :meth:`resume`; returns when that is so.

        ``abort`` ends the running requests with what they have; ``in_place`` keeps them with their memory; ``retract``
        keeps them without it, so that the cache can be flushed (they are computed again).
        """
        self._going.clear()
        if mode == "abort":
            self.abort(None)
        else:
            await self._client.pause(mode)

    async def resume(self) -> None:
        """Go on after :meth:`pause`."""
        await self._client.resume()
        self._going.set()

    async def flush_cache(self) -> bool:
        return await self._client.flush_cache()

    async def profile(self, command: ProfileCommand) -> str:
        """Begin or end a recording of the steps; where it goes or is. :class:`RequestError` when that cannot be."""
        try:
            done, said = await self._client.profile(command)
        except (ValueError, OverflowError) as error:  # a lone surrogate
            raise RequestError(f"The command cannot be passed to the scheduler: {error}") from None
        if not done:
            raise RequestError(said)
        return said

    def fail(self, error: RequestError) -> None:
        """The scheduler is gone: every request, running or to come, ends with ``error``."""
        self._failure = error
        self._client.fail(error)
        self._going.set()
        listeners: dict[int, Listener] = {}
        for state in self._outputs.running():
            self._outputs.remove(state.uid)
            if state.listener is not None:
                listeners[id(state.listener)] = state.listener
                state.listener = None
        self._fewer.set()
        for listener in listeners.values():
            listener.fail(error)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _check_count(options: Sequence[RequestOptions]) -> None:
    """Raise :class:`RequestError` for a call that would become too many requests."""
    count = sum(option.sampling.n for option in options)
    if count > MOST_REQUESTS:
        message = (
            f"One call may ask for {MOST_REQUESTS} answers at most (prompts times n), got {count}: split the batch."
        )
        raise RequestError(message, param=options[0].names.get("prompt", "text"))


def _parts(
    asked: list[tuple[Prompt, RequestOptions]],
) -> Iterator[tuple[list[tuple[Prompt, RequestOptions]], bool]]:
    """A call's prompts in parts, each ending where it gets long, and whether the whole call is short."""
    part: list[tuple[Prompt, RequestOptions]] = []
    gathered, cut = 0, False
    for each in asked:
        part.append(each)
        gathered += _characters(each[0])
        if gathered > LONG_PROMPT_CHARS:
            yield part, False
            part, gathered, cut = [], 0, True
    if part:
        yield part, not cut


def _characters(prompt: Prompt) -> int:
    if isinstance(prompt, ChatPrompt):
        return sum(len(str(message.get("content") or "")) for message in prompt.messages)
    if isinstance(prompt, TextPair):
        return len(prompt.first) + len(prompt.second)
    return len(prompt) if isinstance(prompt, str) else 0
