"""What runs in the checker's process: compile each grammar, fill its first mask, say what went wrong."""

from __future__ import annotations

import resource
import signal
from multiprocessing.connection import Connection

import numpy as np

from backend.grammar.compiler import compile_grammar
from backend.grammar.errors import GrammarError
from backend.grammar.limits import CHECKER_BYTES
from backend.grammar.spec import GrammarSpec
from backend.grammar.state import bitmask_words
from backend.grammar.vocabulary import Vocabulary


def run_trials(pipe: Connection) -> None:
    """Answer each (kind, text) with an empty string or an error until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process itself
    resource.setrlimit(resource.RLIMIT_AS, (CHECKER_BYTES, CHECKER_BYTES))
    vocabulary = Vocabulary.of_bytes()
    mask = np.zeros(bitmask_words(vocabulary.size), np.int32)
    pipe.send("")
    while True:
        try:
            kind, text = pipe.recv()
        except EOFError:
            return
        pipe.send(_verdict(GrammarSpec(kind, text), vocabulary, mask))


def _verdict(spec: GrammarSpec, vocabulary: Vocabulary, mask: np.ndarray) -> str:
    try:
        state = compile_grammar(spec, vocabulary).start()
        state.fill_mask(mask)
    except GrammarError as error:
        return str(error)
    except MemoryError:
        return f"{spec.label} needs more memory to compile than is allowed"
    if not mask.any():
        return f"{spec.label} allows no output at all"
    return ""
