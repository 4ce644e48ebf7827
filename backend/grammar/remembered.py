"""A tokenizer that remembers what it made of short texts.

The library asks for the tokens of every forced span anew, with the token before it, since that decides where the span
is cut; which of them are certain it finds from the grammar. A schema has few such texts, and they come again with every
record. Only the tokenizer's part is remembered, so the answer is the same token for token.
"""

from __future__ import annotations

from functools import lru_cache

from llguidance import LLTokenizer, TokenizerWrapper

REMEMBERED = 4096
LONGEST = 256  # characters; what is longer is looked up anew, so that the memory is bounded


class _Remembering(TokenizerWrapper):
    """Called with a text, from whichever thread fills a mask or looks for forced tokens."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        every = range(tokenizer.vocab_size)
        self.eos_token_id = tokenizer.eos_token
        self.bos_token_id = None
        self.tokens = [tokenizer.decode_bytes([token]) for token in every]
        self.special_token_ids = [token for token in every if tokenizer.is_special_token(token)]
        self._tokenize = tokenizer.tokenize_str
        self._remembered = lru_cache(REMEMBERED)(tokenizer.tokenize_str)
        super().__init__(self)

    def __call__(self, text: str) -> list[int]:
        return self._remembered(text) if len(text) <= LONGEST else self._tokenize(text)


def remembering(tokenizer: LLTokenizer, slices: list[str]) -> LLTokenizer:
    """The same vocabulary and the same tokens, several times as fast for texts that come again.

    ``slices`` are expressions: where a state allows all that one of them matches, its tokens need no look.
    """
    return LLTokenizer(
        _Remembering(tokenizer),
        n_vocab=tokenizer.vocab_size,
        eos_token=tokenizer.eos_tokens,
        slices=slices,
    )
