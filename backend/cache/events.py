"""What the prefix cache did, told as KV events: blocks stored, blocks removed, everything cleared.

The radix tree notes its changes in a :class:`CacheLog`, which costs the step an append. :class:`BlockEvents` turns them
into events somewhere else: a block is one page, known by a hash of its tokens and of all blocks before it. The events
are SGLang's and vLLM's, in the array encoding (``["BlockStored", hashes, parent, ...]``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from backend.cache.pages import Pages

MEDIUM = "GPU"  # the word for the tier that is computed on, also where that is a CPU
HOST_MEDIUM = "CPU"
_POSITIVE = 2**63 - 1  # consumers read signed or unsigned 64 bits; these fit both


class BlockStored(msgspec.Struct, array_like=True, tag=True):
    """``token_ids`` fill ``block_hashes`` blocks of ``block_size`` each, which follow ``parent_block_hash``."""

    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = MEDIUM
    lora_name: str | None = None
    extra_keys: list[list[str] | None] | None = None  # one entry a block; salts stand in a prompt's first block


class BlockRemoved(msgspec.Struct, array_like=True, tag=True):
    block_hashes: list[int]
    medium: str | None = MEDIUM


class AllBlocksCleared(msgspec.Struct, array_like=True, tag=True):
    pass


Event = BlockStored | BlockRemoved | AllBlocksCleared


class Stored(NamedTuple):
    """``tokens`` (whole pages) are cached in ``pages``, after ``parent`` (None: from the start)."""

    parent: int | None
    tokens: NDArray[np.int32]
    pages: Pages
    namespace: str


class Copied(NamedTuple):
    """``tokens`` after ``parent`` (a page of the device) are in both tiers now: the copy went ``to_host`` or back."""

    parent: int | None
    tokens: NDArray[np.int32]
    pages: Pages
    host: Pages
    namespace: str
    to_host: bool


class Removed(NamedTuple):
    pages: Pages
    on_host: bool = False


class Cleared(NamedTuple):
    pass


Change = Stored | Copied | Removed | Cleared


class CacheLog:
    """The changes of a radix tree since the last :meth:`take`, with the tree's own arrays: nobody writes to those."""

    def __init__(self) -> None:
        self._changes: list[Change] = []

    def stored(self, parent: int | None, tokens: NDArray[np.int32], pages: Pages, namespace: str) -> None:
        self._changes.append(Stored(parent, tokens, pages, namespace))

    def copied(
        self,
        parent: int | None,
        tokens: NDArray[np.int32],
        pages: Pages,
        host: Pages,
        namespace: str,
        *,
        to_host: bool,
    ) -> None:
        self._changes.append(Copied(parent, tokens, pages, host, namespace, to_host))

    def removed(self, pages: Pages, *, on_host: bool = False) -> None:
        self._changes.append(Removed(pages, on_host))

    def cleared(self) -> None:
        """The tree is empty, so nothing that came before matters."""
        self._changes = [Cleared()]

    def take(self) -> list[Change]:
        changes, self._changes = self._changes, []
        return changes


class BlockEvents:
    """Gives each cached page its block hash and writes changes as events. Changes must come in order, all of them."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._hashes: dict[int, int] = {}  # page -> hash of its block
        self._on_host: dict[int, int] = {}  # the same for the host's pages

    def events(self, changes: Iterable[Change]) -> list[Event]:
        return [self._event(change) for change in changes]

    def _event(self, change: Change) -> Event:
        if isinstance(change, Stored):
            return self._stored(change)
        if isinstance(change, Copied):
            return self._copied(change)
        if isinstance(change, Removed):
            hashes, medium = (self._on_host, HOST_MEDIUM) if change.on_host else (self._hashes, MEDIUM)
            return BlockRemoved([hashes.pop(page) for page in change.pages.tolist()], medium)
        self._hashes.clear()
        self._on_host.clear()
        return AllBlocksCleared()

    def _stored(self, change: Stored) -> BlockStored:
        parent = None if change.parent is None else self._hashes[change.parent]
        chain = root_hash(change.namespace) if parent is None else parent
        hashes = []
        for page, tokens in zip(change.pages.tolist(), change.tokens.reshape(-1, self._page_size), strict=True):
            chain = chain_hash(chain, tokens)
            self._hashes[page] = chain
            hashes.append(chain)
        return self._told(hashes, parent, change)

    def _copied(self, change: Copied) -> BlockStored:
        known, new = (self._hashes, self._on_host) if change.to_host else (self._on_host, self._hashes)
        source, target = (change.pages, change.host) if change.to_host else (change.host, change.pages)
        hashes = [known[page] for page in source.tolist()]
        new.update(zip(target.tolist(), hashes, strict=True))
        parent = None if change.parent is None else self._hashes[change.parent]
        return self._told(hashes, parent, change, HOST_MEDIUM if change.to_host else MEDIUM)

    def _told(
        self, hashes: list[int], parent: int | None, change: Stored | Copied, medium: str = MEDIUM
    ) -> BlockStored:
        salts = _salts(change.namespace) if parent is None else []
        extra = [salts, *[None] * (len(hashes) - 1)] if salts else None
        return BlockStored(hashes, parent, change.tokens.tolist(), self._page_size, medium=medium, extra_keys=extra)


def root_hash(namespace: str) -> int:
    """What a prompt's first block follows."""
    return xxhash.xxh3_64_intdigest(namespace.encode()) & _POSITIVE


def chain_hash(parent: int, tokens: NDArray[np.int32]) -> int:
    """The hash of a block of ``tokens`` (int32) after ``parent``."""
    return xxhash.xxh3_64_intdigest(tokens.tobytes(), seed=parent) & _POSITIVE


def _salts(namespace: str) -> list[str]:
    """The salt and the extra key that a request's namespace was made of (``LENGTH:salt`` and the key after it).

    A salt alone is told as vLLM does; a key stands second, behind an empty salt if there is none: the two differ.
    """
    length, colon, rest = namespace.partition(":")
    if not colon or not length.isdecimal():
        return [namespace] if namespace else []
    cut = int(length)
    return [rest[:cut], rest[cut:]] if rest[cut:] else [rest]
