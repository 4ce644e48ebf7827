"""Compiling for one vocabulary, once for each grammar: answers start from copies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from llguidance import LLMatcher

from backend.grammar.contract import Filler, Startable
from backend.grammar.errors import GrammarError
from backend.grammar.libraries import LLGUIDANCE, compiler_of, filler_of
from backend.grammar.limits import parser_limits
from backend.grammar.spec import GrammarSpec
from backend.grammar.state import GrammarState
from backend.grammar.translate import one_line, translate
from backend.grammar.vocabulary import Vocabulary

CACHED_GRAMMARS = 256


class CompiledGrammar:
    """A grammar ready for any number of answers, which share the work of its masks."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def start(self) -> GrammarState:
        """The state of an answer that begins."""
        return GrammarState(self._matcher.deep_copy(), self._vocab_size)


def compile_grammar(spec: GrammarSpec, vocabulary: Vocabulary) -> CompiledGrammar:
    """Compile within the limits of work. Raises GrammarError."""
    grammar = translate(spec, vocabulary.control_tokens)
    matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=parser_limits())
    if matcher.is_error():
        raise GrammarError(f"{spec.label} cannot be compiled: {one_line(matcher.get_error())}")
    return CompiledGrammar(matcher, vocabulary.size)


class GrammarCompiler:
    """Compiles beside the scheduler's thread (the library frees the interpreter meanwhile); keeps the latest grammars.

    ``vocabulary`` is called for the first grammar, in the compiling thread. ``submit`` and ``close`` belong to one
    thread. ``library`` is a name of ``backend.grammar.libraries``.
    """

    def __init__(
        self,
        vocabulary: Callable[[], Vocabulary],
        capacity: int = CACHED_GRAMMARS,
        library: str = LLGUIDANCE,
    ) -> None:
        self._library = library
        self._compile_now = cache(lambda: compiler_of(library, vocabulary()))
        self._capacity = capacity
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._cache: OrderedDict[GrammarSpec, Future[Startable]] = OrderedDict()

    def filler(self) -> Filler:
        """What fills the masks of this compiler's answers."""
        return filler_of(self._library)

    def submit(self, spec: GrammarSpec) -> Future[Startable]:
        """The grammar, now or later; its result may be a GrammarError. Equal specs are compiled once."""
        future = self._cache.get(spec)
        if future is None:
            future = self._cache[spec] = self._pool.submit(self._compile, spec)
            if len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        self._cache.move_to_end(spec)
        return future

    def _compile(self, spec: GrammarSpec) -> Startable:
        try:
            return self._compile_now()(spec)
        except GrammarError:
            raise
        except Exception as error:  # whatever the library makes of a tokenizer; the scheduler must outlive it
            reason = one_line(str(error))
            raise GrammarError(f"{spec.label} cannot be followed with this model's tokenizer: {reason}") from error

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
