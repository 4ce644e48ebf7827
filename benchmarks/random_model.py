"""A model that says anything a grammar allows, and the loop that a scheduler would drive it with."""

from __future__ import annotations

import random
from collections.abc import Collection

import numpy as np

from backend.grammar import GrammarState, bitmask_words

ENDERS = frozenset(b'"]}')  # of the vocabulary of bytes


def allowed_tokens(state: GrammarState, vocab_size: int) -> list[int]:
    row = np.zeros(bitmask_words(vocab_size), np.int32)
    state.fill_mask(row)
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist()


def generate(
    state: GrammarState,
    vocab_size: int,
    eos: int,
    chance: random.Random,
    *,
    jump: bool,
    limit: int = 5000,
    enders: Collection[int] = ENDERS,
) -> tuple[list[int], int]:
    """The tokens of an answer (without its end token) and the number of sampled ones. ``enders`` end values."""
    tokens: list[int] = []
    sampled = 0
    while not state.is_done and len(tokens) < limit:
        forced = state.forced() if jump else []
        for token in forced:
            state.advance(token)
        tokens += forced
        if forced:
            continue
        token = _pick(allowed_tokens(state, vocab_size), {eos, *enders}, chance)
        sampled += 1
        state.advance(token)
        if token != eos:
            tokens.append(token)
    return tokens, sampled


def _pick(allowed: list[int], ends: Collection[int], chance: random.Random) -> int:
    """Anything, with a liking for the end: real models come to one."""
    liked = [token for token in allowed if token in ends]
    return chance.choice(liked if liked and chance.random() < 0.3 else allowed)
