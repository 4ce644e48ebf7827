"""Structured output over xgrammar (``--grammar-backend xgrammar``) for what it holds exactly, else over llguidance.

It has no limits of work: a grammar is tried with the model's own vocabulary before it comes here, and an answer whose
masks take too long ends. No tokens are forced: the library's forced text has no bound (``root ::= "a" root`` never
returns), so every token is sampled.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xgrammar
from numpy.typing import NDArray

from backend.grammar.compiler import compile_grammar
from backend.grammar.contract import Startable
from backend.grammar.errors import GrammarError
from backend.grammar.spec import GrammarSpec
from backend.grammar.state import GrammarState, MaskFiller, bitmask_words
from backend.grammar.translate import one_line
from backend.grammar.vocabulary import Vocabulary
from backend.grammar.xgrammar_scope import exact_regex, exact_schema, exact_tags

MASK_CPU_SECONDS = 0.25  # of one row; usual masks take some tens of microseconds
FILL_THREADS = 8


class XGrammarCompiler:
    """Compiles for one vocabulary. ``compile`` may be called by one thread at a time."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        library = vocabulary.tokenizer
        self._ends = sorted(library.eos_tokens)
        every = range(library.vocab_size)
        texts = [b"" if library.is_special_token(each) else library.decode_bytes([each]) for each in every]
        info = xgrammar.TokenizerInfo(
            texts, xgrammar.VocabType.RAW, vocab_size=vocabulary.size, stop_token_ids=self._ends
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile(self, spec: GrammarSpec) -> Startable:
        """By xgrammar if it holds ``spec`` exactly, else by llguidance, whose error counts. Raises GrammarError."""
        try:
            compiled = self._compile(spec)
        except GrammarError:
            raise
        except (RuntimeError, ValueError):  # RecursionError among them
            compiled = None
        if compiled is None:
            return compile_grammar(spec, self._vocabulary)
        return _Compiled(compiled, self._vocabulary.size, self._ends)

    def _compile(self, spec: GrammarSpec) -> xgrammar.CompiledGrammar | None:
        if spec.kind == "json_schema":
            # Written as llguidance writes it, too.
            exact = exact_schema(json.loads(spec.text))
            compile_schema = self._compiler.compile_json_schema
            return compile_schema(spec.text, any_whitespace=False, strict_mode=False) if exact else None
        if spec.kind == "regex":
            pattern = exact_regex(spec.text)
            return None if pattern is None else self._compiler.compile_regex(pattern)
        if spec.kind == "ebnf":
            return self._compiler.compile_grammar(spec.text)
        if spec.kind == "structural_tag":
            return self._tags(json.loads(spec.text))
        return None

    def _tags(self, form: object) -> xgrammar.CompiledGrammar | None:
        exact = exact_tags(form, self._vocabulary.control_tokens)
        if exact is not None:
            return self._compiler.compile_structural_tag(exact)
        if isinstance(form, dict) and "format" in form:  # which llguidance does not know
            raise GrammarError("structural_tag.format asks for what xgrammar would not hold exactly; use structures")
        return None


class _Compiled:
    def __init__(self, grammar: xgrammar.CompiledGrammar, size: int, ends: Sequence[int]) -> None:
        self._grammar = grammar
        self._size = size
        self._ends = ends

    def start(self) -> XGrammarState:
        return XGrammarState(xgrammar.GrammarMatcher(self._grammar), self._size, self._ends)


class XGrammarState:
    """Follows one answer, as ``AnswerState`` says."""

    def __init__(self, matcher: xgrammar.GrammarMatcher, vocab_size: int, ends: Sequence[int]) -> None:
        self._matcher = matcher
        self._scratch = np.zeros(bitmask_words(vocab_size), np.int32)
        self._last_word = np.int32(
            -1 if vocab_size % 32 == 0 else (1 << vocab_size % 32) - 1
        )  # the library fills it up
        self._others = np.full_like(self._scratch, -1)  # all tokens but those that end an answer
        for token in ends:
            self._others.view(np.uint32)[token // 32] &= np.uint32(~(1 << token % 32) & 0xFFFFFFFF)
        self._done: bool | None = None  # None: not looked at since the last token

    @property
    def is_done(self) -> bool:
        if self._done is None:
            self._done = self._matcher.is_terminated() or (self._matcher.is_completed() and self._only_ends())
        return self._done

    @property
    def may_end(self) -> bool:
        return bool(self._matcher.is_completed())

    def fill_mask(self, row: NDArray[np.int32]) -> None:
        if row.dtype != np.int32 or row.shape != self._scratch.shape or not row.flags.c_contiguous:
            raise TypeError(f"a mask row must be contiguous int32{list(self._scratch.shape)}")
        began = time.thread_time()
        try:
            self._matcher.fill_next_token_bitmask(row[None])
        except RuntimeError as error:
            raise GrammarError(f"the output left its grammar: {one_line(str(error))}") from None
        self._limit(began)
        row[-1] &= self._last_word
        if not row.any():
            raise GrammarError("the output left its grammar: no token may follow it")

    def advance(self, token: int) -> None:
        began = time.thread_time()
        self._done = None
        if not self._matcher.accept_token(token):
            raise GrammarError(f"the output left its grammar: it does not allow token {token}")
        self._limit(began)

    def forced(self) -> list[int]:
        return []

    def jump(self, room: int, stops: frozenset[int] = frozenset()) -> list[int]:
        return []

    def rollback(self, count: int) -> None:
        self._done = None
        self._matcher.rollback(count)

    def _only_ends(self) -> bool:
        self.fill_mask(self._scratch)
        return not (self._scratch & self._others).any()

    @staticmethod
    def _limit(began: float) -> None:
        taken = time.thread_time() - began
        if taken > MASK_CPU_SECONDS:
            raise GrammarError(f"the output's grammar takes too long to follow: {taken:.2f} seconds for one token")


class XGrammarFiller:
    """Fills the masks of both libraries' answers, each on threads; xgrammar frees the interpreter meanwhile."""

    def __init__(self) -> None:
        self._others = MaskFiller()
        self._pool = ThreadPoolExecutor(max(1, min(FILL_THREADS, (os.cpu_count() or 1) // 2)), "xgrammar")

    def fill(self, states: Sequence[Any], rows: Sequence[int], bits: NDArray[np.int32]) -> dict[int, str]:
        pairs = list(zip(states, rows, strict=True))
        ours = [(state, bits[row]) for state, row in pairs if isinstance(state, XGrammarState)]
        mine = [row for state, row in pairs if isinstance(state, XGrammarState)]
        several = len(ours) > 1  # one is not worth waking another thread
        said = list(self._pool.map(_fill, ours)) if several else [_fill(each) for each in ours]
        problems = {row: problem for row, problem in zip(mine, said, strict=True) if problem}
        others = [(state, row) for state, row in pairs if isinstance(state, GrammarState)]
        return problems | self._others.fill([state for state, _ in others], [row for _, row in others], bits)


def _fill(pair: tuple[XGrammarState, NDArray[np.int32]]) -> str:
    state, row = pair
    try:
        state.fill_mask(row)
    except GrammarError as error:
        return str(error)
    return ""
