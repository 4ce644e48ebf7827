"""What each token stands for in bytes, where a tokenizer's decoder does nothing but join them (GPT-2's kind)."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders

# GPT-2's alphabet: bytes that print stand for themselves, the others for the characters from 256 on, in order.
_PRINTED = frozenset([*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
_NO_BYTE = 0xFFFF  # for characters below 256 that are not of the alphabet
_TO_BYTES = dict.fromkeys(_OTHERS, _NO_BYTE) | {256 + i: byte for i, byte in enumerate(_OTHERS)}


def byte_table(backend: tokenizers.Tokenizer, skipped: frozenset[int]) -> list[bytes] | None:
    """The bytes of each id, none for the ``skipped``; None when the decoder does more than join bytes.

    ``b"".join(...).decode(errors="replace")`` over it is then what ``backend.decode`` gives.
    """
    if not isinstance(backend.decoder, decoders.ByteLevel):
        return None
    count = backend.get_vocab_size(with_added_tokens=True)
    return [b"" if id in skipped else _bytes(backend.id_to_token(id)) for id in range(count)]


def _bytes(token: str | None) -> bytes:
    """A token with a character beyond the alphabet (an added one) is its own text; an id without a token is nothing."""
    if token is None:
        return b""
    try:
        return token.translate(_TO_BYTES).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode()
