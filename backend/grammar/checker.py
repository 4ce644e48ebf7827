"""Trying a grammar where it can do no harm: in a process with little memory that is killed when it takes too long."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import signal
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from backend.grammar.errors import GrammarError
from backend.grammar.figures import GrammarFigures, Verdict
from backend.grammar.libraries import LLGUIDANCE, XGRAMMAR
from backend.grammar.limits import COMPILE_CPU_SECONDS, COMPILE_SECONDS, XGRAMMAR_CPU_SECONDS
from backend.grammar.spec import GrammarSpec
from backend.grammar.trial import run_trials
from backend.grammar.vocabulary import VocabularyForm

CHECKERS = 2
CACHED_VERDICTS = 1024
START_SECONDS = 60.0  # for a fresh process to be ready; not counted against a grammar


class GrammarChecker:
    """Says whether grammars compile. Verdicts are kept; ``close`` ends the processes, which start on first use."""

    def __init__(self, cpu_seconds: float | None = None, checkers: int = CHECKERS, library: str = LLGUIDANCE) -> None:
        if cpu_seconds is None:
            cpu_seconds = XGRAMMAR_CPU_SECONDS if library == XGRAMMAR else COMPILE_CPU_SECONDS
        self.library = library
        self._trials = [_Trial(cpu_seconds, library) for _ in range(checkers)]
        self._idle: queue.LifoQueue[_Trial] = queue.LifoQueue()  # the one that runs already comes first
        for trial in self._trials:
            self._idle.put(trial)
        self._pool = ThreadPoolExecutor(checkers, thread_name_prefix="grammar-check")
        self._verdicts: OrderedDict[GrammarSpec, Verdict] = OrderedDict()
        self.figures = GrammarFigures()

    def try_with(self, form: VocabularyForm) -> None:
        """Before the first check: grammars are tried with the model's own vocabulary, not with bytes."""
        for trial in self._trials:
            trial.form = form

    async def check(self, spec: GrammarSpec) -> None:
        """Raises GrammarError for a grammar that does not compile within the limits."""
        known = self._verdicts.get(spec)
        verdict = known
        if verdict is None:
            verdict = await asyncio.get_running_loop().run_in_executor(self._pool, self._try, spec)
            self._verdicts[spec] = verdict
            if len(self._verdicts) > CACHED_VERDICTS:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(spec)
        self.figures.count(verdict, known=known is not None)
        if verdict.error:
            raise GrammarError(verdict.error)

    def close(self) -> None:
        """End the processes; waits for checks that are running."""
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().stop()

    def _try(self, spec: GrammarSpec) -> Verdict:
        trial = self._idle.get()
        try:
            return trial.verdict(spec)
        finally:
            self._idle.put(trial)


class _Trial:
    """One process, started when it is needed and again after it was killed."""

    def __init__(self, cpu_seconds: float, library: str) -> None:
        self.form: VocabularyForm | None = None
        self._library = library
        self._cpu_seconds = cpu_seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def verdict(self, spec: GrammarSpec) -> Verdict:
        """Try ``spec``."""
        pipe, begun = self._pipe or self._start(), time.monotonic()
        error = self._ask(pipe, spec)
        timed_out = error is None
        if error is None:
            error = f"{spec.label} takes longer to compile than the {self._cpu_seconds:g} seconds that are allowed"
        return Verdict(error, timed_out, time.monotonic() - begun)

    def _ask(self, pipe: Connection, spec: GrammarSpec) -> str | None:
        """Empty for a good grammar, else why not; None: it took too much CPU time. Raises GrammarError without any."""
        try:
            pipe.send((spec.kind, spec.text))
            if pipe.poll(COMPILE_SECONDS):
                return str(pipe.recv())
        except (EOFError, OSError):
            if self._died_of() == signal.SIGPROF:
                return None
            return f"{spec.label} needs more memory to compile than is allowed"  # or stack, or the library gave up
        self.stop()
        raise GrammarError(f"{spec.label} was not compiled within {COMPILE_SECONDS:g} seconds: this machine is busy")

    def _died_of(self) -> int:
        """The signal that ended the process; 0 for none."""
        process = self._process
        if process is None:
            return 0
        process.join()
        code = process.exitcode or 0
        self.stop()
        return max(-code, 0)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=run_trials,
            args=(theirs, self._cpu_seconds, self._library, self.form),
            name="warmlane-grammar",
            daemon=True,
        )
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        try:
            ready = ours.poll(START_SECONDS) and ours.recv() == ""
        except EOFError:
            ready = False
        if not ready:
            self.stop()
            raise GrammarError("grammars cannot be checked: the process for it does not start")
        return ours
