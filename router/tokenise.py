"""Prompts as token ids, worked out off the event loop, so that they can be compared with what engines say they hold."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from policies.prefix.block_index import Chain, PromptKey, chain_of

Encode = Callable[[str, bool], list[int]]  # (text, whether the model's special tokens are added) -> ids

MAX_WAITING = 256  # prompts; more would only come too late
INLINE_IDS = 4096  # bytes of given token ids up to which hashing them takes less than handing them over


class Tokens(NamedTuple):
    """A prompt as engines see it."""

    length: int
    chains: dict[int, Chain]  # by block size


class TokenPool:
    """A few threads that tokenise and hash. Tokenizers release the interpreter's lock."""

    def __init__(self, encode: Encode | None, threads: int | None = None) -> None:
        self._encode = encode
        self._pool = ThreadPoolExecutor(threads or max(1, min(4, (os.cpu_count() or 1) // 2)), "tokenise")
        self._waiting = 0
        self.refused = 0  # prompts that found the pool full
        self.failed = 0  # prompts that the tokenizer could not take

    @property
    def can_encode(self) -> bool:
        return self._encode is not None

    async def of_text(self, text: bytes, special: bool, sizes: Collection[int], key: PromptKey) -> Tokens | None:
        """None when there is no tokenizer, or no room to wait for it."""
        if self._encode is None or not text:
            return None
        return await self._away(_tokens_of_text, self._encode, text, special, tuple(sizes), key)

    async def of_ids(self, ids: bytes, sizes: Collection[int], key: PromptKey) -> Tokens | None:
        """``ids``: int32."""
        if len(ids) <= INLINE_IDS:
            return _tokens(ids, tuple(sizes), key)
        return await self._away(_tokens, ids, tuple(sizes), key)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _away(self, work: Callable[..., Tokens], *args: object) -> Tokens | None:
        if self._waiting >= MAX_WAITING:
            self.refused += 1
            return None
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        except (ValueError, TypeError, OverflowError, UnicodeError):
            self.failed += 1
            return None
        finally:
            self._waiting -= 1


def _tokens_of_text(encode: Encode, text: bytes, special: bool, sizes: tuple[int, ...], key: PromptKey) -> Tokens:
    return _tokens(array("i", encode(text.decode("utf-8"), special)).tobytes(), sizes, key)


def _tokens(ids: bytes, sizes: tuple[int, ...], key: PromptKey) -> Tokens:
    return Tokens(len(ids) // 4, {size: chain_of(ids, size, key) for size in sizes})
