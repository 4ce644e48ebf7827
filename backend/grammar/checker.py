"""Trying a grammar where it can do no harm: in a process with little memory that is killed when it takes too long.

Grammars take turns, in the order in which they came; one process takes no large ones, which alone can be slow. What
waits too long for its turn is told to come again: hostile grammars hold each other up, and each of them for no longer
than the limit of CPU time.
"""

from __future__ import annotations

import asyncio
import queue
import signal
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from backend.grammar.errors import GrammarBusy, GrammarError
from backend.grammar.figures import GrammarFigures, Verdict
from backend.grammar.libraries import LLGUIDANCE, XGRAMMAR
from backend.grammar.limits import COMPILE_CPU_SECONDS, WAIT_SECONDS, XGRAMMAR_CPU_SECONDS, busy_after
from backend.grammar.spec import GrammarSpec
from backend.grammar.tried import Trial
from backend.grammar.vocabulary import VocabularyForm

CHECKERS = 2
CACHED_VERDICTS = 1024
LARGE = 8192  # characters; what is shorter reaches the library's own limits of work within a tenth of a second


class GrammarChecker:
    """Says whether grammars compile. Verdicts are kept; ``close`` ends the processes, which start on first use."""

    def __init__(
        self,
        cpu_seconds: float | None = None,
        checkers: int = CHECKERS,
        library: str = LLGUIDANCE,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        if cpu_seconds is None:
            cpu_seconds = XGRAMMAR_CPU_SECONDS if library == XGRAMMAR else COMPILE_CPU_SECONDS
        self.library = library
        self._cpu_seconds = cpu_seconds
        self._wait_seconds = wait_seconds
        self._trials = [Trial(cpu_seconds, library) for _ in range(checkers)]
        self._idle: queue.LifoQueue[Trial] = queue.LifoQueue()  # the one that runs already comes first
        for trial in self._trials:
            self._idle.put(trial)
        self._pool = ThreadPoolExecutor(checkers, thread_name_prefix="grammar-check")
        self._turns = asyncio.Semaphore(checkers)
        self._turns_of_large = asyncio.Semaphore(max(checkers - 1, 1))
        self._starting: asyncio.Future[None] | None = None  # the first process
        self._asked: dict[GrammarSpec, asyncio.Future[Verdict]] = {}  # equal ones are tried once
        self._verdicts: OrderedDict[GrammarSpec, Verdict] = OrderedDict()
        self.figures = GrammarFigures()

    def try_with(self, form: VocabularyForm) -> None:
        """Before the first check: grammars are tried with the model's own vocabulary, not with bytes."""
        for trial in self._trials:
            trial.form = form

    async def check(self, spec: GrammarSpec) -> None:
        """Raises GrammarError for a grammar that does not compile within the limits, GrammarBusy without a verdict."""
        verdict = self._verdicts.get(spec)
        known = verdict is not None
        if verdict is None:
            verdict = await self._ask(spec)
            self._verdicts[spec] = verdict
            if len(self._verdicts) > CACHED_VERDICTS:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(spec)
        self.figures.count(verdict, known=known)
        if verdict.error:
            raise GrammarError(verdict.error)

    def close(self) -> None:
        """End the processes; waits for checks that are running."""
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().stop()

    async def _ask(self, spec: GrammarSpec) -> Verdict:
        asked = self._asked.get(spec)
        if asked is None:
            asked = self._asked[spec] = asyncio.ensure_future(self._in_turn(spec))
            asked.add_done_callback(lambda done: self._answered(spec, done))
        return await asyncio.shield(asked)  # others may wait for it when this one leaves

    def _answered(self, spec: GrammarSpec, done: asyncio.Future[Verdict]) -> None:
        del self._asked[spec]
        if not done.cancelled():
            done.exception()  # nobody may be left whom it could reach

    async def _in_turn(self, spec: GrammarSpec) -> Verdict:
        await self._started()
        async with AsyncExitStack() as turns:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    if len(spec.text) > LARGE:
                        await turns.enter_async_context(self._turns_of_large)
                    await turns.enter_async_context(self._turns)
            except TimeoutError:
                limit = f"{self._wait_seconds:g} seconds"
                raise GrammarBusy(
                    f"{spec.label} was not looked at within {limit}: too many others are, try again"
                ) from None
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._try, spec)

    async def _started(self) -> None:
        """Wait for the first process, which takes longer than most grammars; no time that a grammar waits."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().run_in_executor(self._pool, self._start_one)
            for _ in self._trials[1:]:
                self._pool.submit(self._start_one)  # one that does not start is tried again with a grammar
        try:
            await asyncio.shield(self._starting)
        except GrammarBusy:
            self._starting = None  # the next one tries again
            raise

    def _start_one(self) -> None:
        trial = self._idle.get()
        try:
            trial.start()
        finally:
            self._idle.put(trial)

    def _try(self, spec: GrammarSpec) -> Verdict:
        trial, begun = self._idle.get(), time.monotonic()
        try:
            answer = trial.ask(spec)
        finally:
            self._idle.put(trial)
        seconds = time.monotonic() - begun
        if isinstance(answer, str):
            return Verdict(answer, seconds=seconds)
        if answer == signal.SIGPROF:
            error = f"{spec.label} takes longer to compile than the {self._cpu_seconds:g} seconds that are allowed"
            return Verdict(error, timed_out=True, seconds=seconds)
        if answer == signal.SIGALRM:
            limit = busy_after(self._cpu_seconds)
            raise GrammarBusy(
                f"{spec.label} was not compiled within {limit:g} seconds: this machine is busy, try again"
            )
        if answer in (signal.SIGKILL, signal.SIGTERM):  # by somebody else, or for want of memory: not the grammar's
            raise GrammarBusy(f"{spec.label} was not tried: the process for it was killed, try again")
        # or stack, or the library gave up
        return Verdict(f"{spec.label} needs more memory to compile than is allowed", seconds=seconds)
