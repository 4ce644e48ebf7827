"""The process in which grammars are tried, as the server sees it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import time
from multiprocessing.connection import Connection

from backend.grammar.errors import GrammarBusy
from backend.grammar.limits import busy_after
from backend.grammar.spec import GrammarSpec
from backend.grammar.trial import run_trials
from backend.grammar.vocabulary import VocabularyForm

START_SECONDS = 60.0  # for the process to be ready; not counted against a grammar
SPARE_SECONDS = 5.0  # for an answer beyond the limit that the process itself keeps to


class Trial:
    """One process, started when it is first needed."""

    def __init__(self, cpu_seconds: float, library: str) -> None:
        self.form: VocabularyForm | None = None
        self._library = library
        self._cpu_seconds = cpu_seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._asked = 0

    def ask(self, spec: GrammarSpec) -> str | int:
        """Empty for a good grammar, why it is none, or the signal that ended the trial.

        Raises GrammarBusy when there is no process that could say so.
        """
        pipe = self.start()
        try:
            while pipe.poll():
                pipe.recv()  # a child was killed while it had nothing to do
            self._asked += 1
            pipe.send((self._asked, spec.kind, spec.text))
            if (answer := self._answer(pipe)) is not None:
                return answer
        except (EOFError, OSError):
            pass  # it has died, against all expectation: killed from outside, or the machine is out of memory
        self.stop()
        raise GrammarBusy(f"{spec.label} was not tried: the process for it has gone, try again")

    def _answer(self, pipe: Connection) -> str | int | None:
        """To what was asked last: answers have its number, since one of before may still come. None: too late."""
        deadline = time.monotonic() + busy_after(self._cpu_seconds) + SPARE_SECONDS
        while pipe.poll(max(deadline - time.monotonic(), 0)):
            answer: tuple[int, str] | int = pipe.recv()
            if isinstance(answer, int):
                return answer
            if answer[0] == self._asked:
                return answer[1]
        return None

    def stop(self) -> None:
        """End the process; what it works on ends by itself."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def start(self) -> Connection:
        """The pipe to the process, which is started unless it runs. Raises GrammarBusy when it does not start."""
        if self._pipe is not None:
            return self._pipe
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
            raise GrammarBusy("grammars cannot be tried: the process for it does not start")
        return ours
