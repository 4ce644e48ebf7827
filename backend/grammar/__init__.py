"""Structured output: grammars that constrain what a model may say, over llguidance. No torch, no GPU.

``libraries.py`` chooses the library: llguidance, or xgrammar for what that holds exactly.

A client's constraint becomes a ``GrammarSpec`` (``spec_from_*``). The frontend lets a ``GrammarChecker`` compile it in
a process that can be killed, so that a bad or hostile grammar is a 400 and never hangs an engine. The scheduler
compiles it again (``GrammarCompiler``, cached) against its own vocabulary, and each row gets a ``GrammarState``.

How a scheduler drives a row's state:

1. On arrival ``compiler.submit(spec)`` gives a future; the request waits in the queue until it is done. Its result's
   ``start()`` is the row's state.
2. Before a step is planned, ``state.forced()`` gives tokens that the grammar leaves no choice about. They are appended
   to the row's known tokens and ``advance(token)`` is called for each, so that one step computes them all; no text is
   tokenised again.
3. When the step is launched, ``MaskFiller`` writes what each row may say as bits (bit ``i % 32`` of word ``i // 32``),
   while the device computes; before sampling the logits of all other tokens become ``-inf``.
4. Each sampled token goes to ``state.advance(token)``. A state needs the previous token's value: an overlapped loop
   settles the rows with a grammar first, and only those. ``rollback(n)`` takes back tokens that were dropped.
5. Once ``state.is_done``, the row ends with reason "stop". ``GrammarError`` from any call ends that request alone.

A mask changes what is sampled, not what is reported: log probabilities stay those of the model.
"""

from backend.grammar.checker import GrammarChecker
from backend.grammar.compiler import CompiledGrammar, GrammarCompiler
from backend.grammar.composed import compose, literal
from backend.grammar.contract import AnswerState, Filler, Startable
from backend.grammar.errors import GrammarBusy, GrammarError
from backend.grammar.figures import GrammarFigures
from backend.grammar.libraries import require_library
from backend.grammar.spec import GrammarSpec, spec_from_fields, spec_from_response_format
from backend.grammar.state import GrammarState, MaskFiller, bitmask_words
from backend.grammar.vocabulary import Vocabulary, VocabularyForm

__all__ = [
    "AnswerState",
    "CompiledGrammar",
    "Filler",
    "GrammarBusy",
    "GrammarChecker",
    "GrammarCompiler",
    "GrammarError",
    "GrammarFigures",
    "GrammarSpec",
    "GrammarState",
    "MaskFiller",
    "Startable",
    "Vocabulary",
    "VocabularyForm",
    "bitmask_words",
    "compose",
    "literal",
    "require_library",
    "spec_from_fields",
    "spec_from_response_format",
]
