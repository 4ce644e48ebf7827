"""The model's vocabulary as llguidance wants it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llguidance import LLTokenizer


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``size`` counts the model's logits; tokens beyond the tokenizer's own are never allowed."""

    tokenizer: LLTokenizer
    size: int
    special_tokens: frozenset[str] = frozenset()

    @classmethod
    def from_json(
        cls,
        tokenizer_json: str,
        *,
        size: int,
        eos_token_ids: Sequence[int],
        special_tokens: Collection[str] = (),
    ) -> Vocabulary:
        """From the text of a ``tokenizer.json``. Takes about a second for a large vocabulary: build it once."""
        tokenizer = LLTokenizer(tokenizer_json, n_vocab=size, eos_token=list(eos_token_ids))
        return cls(tokenizer, size, frozenset(special_tokens))

    @classmethod
    def of_bytes(cls) -> Vocabulary:
        """256 bytes and a few control tokens: enough to see whether a grammar compiles."""
        tokenizer = LLTokenizer("byte")
        return cls(tokenizer, tokenizer.vocab_size)
