"""The libraries behind ``--grammar-backend``, each imported when it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from backend.grammar.contract import Filler, Startable
from backend.grammar.spec import GrammarSpec
from backend.grammar.vocabulary import Vocabulary

LLGUIDANCE = "llguidance"
XGRAMMAR = "xgrammar"
XGRAMMAR_NEEDS = ("xgrammar", "tvm_ffi")

Compile = Callable[[GrammarSpec], Startable]


def require_library(name: str) -> None:
    """Raise ``ValueError``, with the line that installs it, for a library that is not there."""
    if name == XGRAMMAR and not all(find_spec(each) for each in XGRAMMAR_NEEDS):
        raise ValueError(
            "--grammar-backend xgrammar is not installed: pip install 'warmlane[xgrammar]' "
            "(from a checkout: pip install -e '.[xgrammar]')"
        )


def compiler_of(name: str, vocabulary: Vocabulary) -> Compile:
    """What compiles with the library ``name`` for ``vocabulary``; llguidance unless it is xgrammar."""
    if name == XGRAMMAR:
        from backend.grammar.xgrammar_library import XGrammarCompiler

        return XGrammarCompiler(vocabulary).compile
    from backend.grammar.compiler import compile_grammar

    return lambda spec: compile_grammar(spec, vocabulary)


def filler_of(name: str) -> Filler:
    """What fills the masks of answers that ``compiler_of`` the same library began."""
    if name == XGRAMMAR:
        from backend.grammar.xgrammar_library import XGrammarFiller

        return XGrammarFiller()
    from backend.grammar.state import MaskFiller

    return MaskFiller()
