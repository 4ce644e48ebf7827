"""What runs in the checker's process: compile each grammar, begin an answer, say what went wrong."""

from __future__ import annotations

import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from backend.grammar.contract import AnswerState
from backend.grammar.errors import GrammarError
from backend.grammar.libraries import LLGUIDANCE, Compile, compiler_of
from backend.grammar.limits import CHECKER_BYTES, CHECKER_STACK_BYTES, busy_after
from backend.grammar.nursery import work_in_children
from backend.grammar.spec import GrammarSpec
from backend.grammar.state import bitmask_words
from backend.grammar.vocabulary import Vocabulary, VocabularyForm

WALKED_TOKENS = 16


def run_trials(
    pipe: Connection, cpu_seconds: float, library: str = LLGUIDANCE, form: VocabularyForm | None = None
) -> None:
    """Say when ready with an empty string, then answer each (number, kind, text) until the other end closes.

    The answer is the number with an empty string or an error, or the signal that ended the trial: SIGPROF after
    ``cpu_seconds`` of CPU time, SIGALRM after ``busy_after(cpu_seconds)``. ``form`` is the vocabulary that grammars are
    tried with; None: one of bytes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process itself
    vocabulary = Vocabulary.of_bytes() if form is None else form.read()
    compile_spec = compiler_of(library, vocabulary)
    room = _address_space() + CHECKER_BYTES  # a library may have brought gigabytes that it only maps
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(CHECKER_STACK_BYTES)
    pipe.send("")
    work_in_children(pipe, lambda: _answer_all(pipe, cpu_seconds, compile_spec, vocabulary.size))


def _address_space() -> int:
    """Bytes of it that this process has taken."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _answer_all(pipe: Connection, cpu_seconds: float, compile_spec: Compile, vocab_size: int) -> None:
    mask = np.zeros(bitmask_words(vocab_size), np.int32)
    with ThreadPoolExecutor(1) as small:  # a thread, for its stack
        while True:
            try:
                number, kind, text = pipe.recv()
            except EOFError:
                return
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # the default actions need no Python to run
            signal.setitimer(signal.ITIMER_REAL, busy_after(cpu_seconds))
            verdict = small.submit(_verdict, GrammarSpec(kind, text), compile_spec, mask).result()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send((number, verdict))


def _verdict(spec: GrammarSpec, compile_spec: Compile, mask: np.ndarray) -> str:
    try:
        state = compile_spec(spec).start()
    except GrammarError as error:
        return str(error)
    except MemoryError:
        return f"{spec.label} needs more memory to compile than is allowed"
    try:
        return _walk(spec, state, mask)
    except GrammarError as error:
        return f"{spec.label} cannot be followed within the limits: {error}"


def _walk(spec: GrammarSpec, state: AnswerState, mask: np.ndarray) -> str:
    """The first steps of an answer, since some grammars compile in a moment and are too large to be followed."""
    for _ in range(WALKED_TOKENS):
        state.fill_mask(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        if not len(allowed):
            return f"{spec.label} allows no output at all"
        state.advance(int(allowed[0]))
        if state.is_done:
            break
    return ""
