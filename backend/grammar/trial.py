"""What runs in the checker's process: compile each grammar, begin an answer, say what went wrong."""

from __future__ import annotations

import resource
import signal
import threading
from multiprocessing.connection import Connection

import numpy as np

from backend.grammar.compiler import compile_grammar
from backend.grammar.errors import GrammarError
from backend.grammar.limits import CHECKER_BYTES, CHECKER_STACK_BYTES
from backend.grammar.spec import GrammarSpec
from backend.grammar.state import GrammarState, bitmask_words
from backend.grammar.vocabulary import Vocabulary

WALKED_TOKENS = 16


def run_trials(pipe: Connection, cpu_seconds: float) -> None:
    """Answer each (kind, text) with an empty string or an error until the other end closes.

    A grammar that takes more than ``cpu_seconds`` of CPU time ends the process by SIGPROF.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process itself
    resource.setrlimit(resource.RLIMIT_AS, (CHECKER_BYTES, CHECKER_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(CHECKER_STACK_BYTES)
    worker = threading.Thread(target=_answer_all, args=(pipe, cpu_seconds))
    worker.start()
    worker.join()


def _answer_all(pipe: Connection, cpu_seconds: float) -> None:
    vocabulary = Vocabulary.of_bytes()
    mask = np.zeros(bitmask_words(vocabulary.size), np.int32)
    pipe.send("")
    while True:
        try:
            kind, text = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # its default action needs no Python to run
        verdict = _verdict(GrammarSpec(kind, text), vocabulary, mask)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(verdict)


def _verdict(spec: GrammarSpec, vocabulary: Vocabulary, mask: np.ndarray) -> str:
    try:
        state = compile_grammar(spec, vocabulary).start()
    except GrammarError as error:
        return str(error)
    except MemoryError:
        return f"{spec.label} needs more memory to compile than is allowed"
    try:
        return _walk(spec, state, mask)
    except GrammarError as error:
        return f"{spec.label} cannot be followed within the limits: {error}"


def _walk(spec: GrammarSpec, state: GrammarState, mask: np.ndarray) -> str:
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
