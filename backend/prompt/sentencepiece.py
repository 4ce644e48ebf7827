"""SentencePiece's BPE (Kudo and Richardson, 2018) from a vocabulary with scores, for the ``tokenizers`` library.

SentencePiece joins the two neighbours whose joint piece has the best score; ``tokenizers`` wants those joints as a list
of merges, the best first. What no piece covers is written in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, normalizers

from backend.prompt.errors import ModelError

SPACE = "\u2581"  # stands for a space in the pieces


def sentencepiece(
    tokens: Sequence[str], scores: Sequence[float], joined: Sequence[bool], *, unknown: str | None, space_prefix: bool
) -> tokenizers.Tokenizer:
    """A tokenizer without added tokens. ``joined`` says of each token whether neighbours may be joined to it.

    ``space_prefix`` puts a space before a text, which decoding takes away again.
    """
    vocab = {token: id for id, token in enumerate(tokens)}
    merges = [pair for token in _best_first(scores, joined) for pair in _halves(tokens[token], vocab)]
    try:
        model = models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"the GGUF file's tokens do not make a tokenizer: {error}") from error
    backend = tokenizers.Tokenizer(model)
    replace = normalizers.Replace(" ", SPACE)
    decoding = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if space_prefix:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace])
        decoding.append(decoders.Strip(" ", 1, 0))
    else:
        backend.normalizer = replace
    backend.decoder = decoders.Sequence(decoding)
    return backend


def _best_first(scores: Sequence[float], joined: Sequence[bool]) -> list[int]:
    return sorted((id for id, may in enumerate(joined) if may), key=lambda id: -scores[id])


def _halves(piece: str, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The ways to join ``piece``: of the tokens that come first in the vocabulary first."""
    known = []
    for at in range(1, len(piece)):
        left = piece[:at]
        if left in vocab and (right := piece[at:]) in vocab:
            known.append((vocab[left], vocab[right], left, right))
    if len(known) > 1:
        known.sort()
    return [(left, right) for *_, left, right in known]
