"""Which worker holds which blocks of tokens, exactly, from the KV events that engines publish.

Engines' block hashes are salted and differ between processes, so each block gets a hash of ours: of its tokens, its
keys (salts) and the block before it. Equal prefixes then have equal chains whoever stores them, and one lookup per
block tells all holders. The engine's own hash is kept only to find the block again when it is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import xxhash

from policies.prefix.kv_decode import BlockHash, Cleared, KVEvent, Medium, Removed, Stored

BLOCK_BYTES = 60  # measured on CPython 3.11: a chain hash and its mask in the table
HELD_BYTES = 130  # measured: an engine's hash in its holder's table
TOKEN_BYTES = 4
# What a cached token saves, against one on the GPU: fetching the block costs a part of computing it.
REUSE = {Medium.GPU: 1.0, Medium.CPU: 0.75, Medium.DISK: 0.25}
_MAX_ORPHANS = 1024  # events of one holder whose parent is not known (yet)


class Source(NamedTuple):
    """Who publishes: one data-parallel rank of a worker."""

    worker: str
    rank: int = 0


class Held(NamedTuple):
    """The part of a prompt that a worker holds; of several ranks the best one's."""

    tokens: int  # counted by what they save: a block on disk is worth less than one on the GPU
    rank: int


class PromptKey(NamedTuple):
    """What else must be equal for two prompts to share blocks."""

    lora: str = ""
    salts: tuple[str, ...] = ()  # cache salt and extra key; neither, the salt, or both, of which it may be empty


Chain = Sequence[int]


def chain_of(tokens: bytes, block_size: int, key: PromptKey) -> list[int]:
    """The hashes of the prompt's full blocks, first to last. ``tokens``: int32. Pure, so any thread may run it.

    The last token is left out: engines compute at least one, so a block that ends the prompt is never reused.
    """
    chain = _root(block_size, key.lora)
    width = block_size * TOKEN_BYTES
    hashes = []
    salts = key.salts
    for start in range(0, len(tokens) - width - TOKEN_BYTES + 1, width):
        chain = _link(chain, tokens[start : start + width], salts)
        salts = ()  # engines mark a prompt's first block only; the others are told apart by the chain
        hashes.append(chain)
    return hashes


class _Holder:
    __slots__ = ("bit", "block_size", "chain", "orphans", "partial_groups", "source", "tiers", "whole")

    def __init__(self, source: Source, bit: int) -> None:
        self.source = source
        self.bit = bit
        self.block_size = 0
        self.chain: dict[BlockHash, int] = {}  # the engine's hash -> ours
        self.tiers: dict[int, Medium] = {}  # our hash -> where it is, unless on the GPU alone
        self.orphans: dict[BlockHash, list[Stored]] = {}  # by parent
        self.partial_groups: set[int] = set()  # cache groups that keep no whole prefixes
        self.whole = True  # no block of it was left out


class BlockIndex:
    """The blocks of all holders, never above ``budget_bytes``: beyond it new blocks are not taken in."""

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes <= 0:
            raise ValueError(f"the block index needs a budget above 0 bytes, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.refused = 0  # blocks that found no room
        self.orphaned = 0  # events whose parent was unknown when they came
        self._blocks: dict[int, int] = {}  # our hash -> bits of its holders
        self._tiered: dict[int, int] = {}  # our hash -> bits of holders that do not have it on the GPU
        self._holders: dict[Source, _Holder] = {}
        self._by_bit: dict[int, _Holder] = {}
        self._held = 0
        self._sizes: set[int] = set()

    @property
    def used_bytes(self) -> int:
        return BLOCK_BYTES * len(self._blocks) + HELD_BYTES * self._held

    @property
    def blocks(self) -> int:
        """Different blocks known."""
        return len(self._blocks)

    @property
    def block_sizes(self) -> set[int]:
        """The block sizes in use, for which a prompt needs a chain."""
        return self._sizes

    def held(self, source: Source) -> int:
        """Blocks that ``source`` holds."""
        holder = self._holders.get(source)
        return len(holder.chain) if holder else 0

    def whole(self, source: Source) -> bool:
        """Is everything here that ``source`` told? Not when blocks found no room, until it is cleared."""
        holder = self._holders.get(source)
        return holder is None or holder.whole

    def match(self, chains: Mapping[int, Chain]) -> dict[str, Held]:
        """What each worker holds of a prompt; ``chains``: its :func:`chain_of` by block size. None held: left out."""
        best: dict[str, Held] = {}
        for size, chain in chains.items():
            for holder, tokens in self._walk(size, chain):
                worker, rank = holder.source
                if worker not in best or tokens > best[worker].tokens:
                    best[worker] = Held(tokens, rank)
        return best

    def _walk(self, size: int, chain: Chain) -> Iterator[tuple[_Holder, int]]:
        """The holders of the chain's beginning, each with the tokens of its part."""
        get, tiered = self._blocks.get, self._tiered
        alive = get(chain[0], 0) if chain else 0  # chains of different block sizes never meet
        missed: dict[int, float] = {}  # by bit: the part of its blocks that saves nothing
        for position, block in enumerate(chain):
            left = alive & get(block, 0)
            if left != alive:
                yield from self._ended(alive ^ left, size, position, missed)
                alive = left
                if not alive:
                    return
            if tiered and (slow := tiered.get(block, 0) & alive):
                for holder in self._with(slow):
                    missed[holder.bit] = missed.get(holder.bit, 0.0) + 1.0 - _reuse(holder.tiers[block])
        yield from self._ended(alive, size, len(chain), missed)

    def _ended(self, bits: int, size: int, blocks: int, missed: dict[int, float]) -> Iterator[tuple[_Holder, int]]:
        for holder in self._with(bits):
            yield holder, int(size * (blocks - missed.get(holder.bit, 0.0)))

    def _with(self, bits: int) -> Iterator[_Holder]:
        while bits:
            bit = bits & -bits
            yield self._by_bit[bit]
            bits ^= bit

    def apply(self, source: Source, events: Iterable[KVEvent]) -> None:
        """Take in what ``source`` says, in its order."""
        holder = self._holder(source)
        for event in events:
            if isinstance(event, Stored):
                self._store(holder, event)
            elif isinstance(event, Removed):
                if event.group not in holder.partial_groups:
                    self._remove(holder, event)
            else:
                self.clear(source)
                holder = self._holder(source)

    def clear(self, source: Source) -> None:
        """``source`` holds nothing, or nothing is known of it any more."""
        holder = self._holders.pop(source, None)
        if holder is None:
            return
        for block in set(holder.chain.values()):
            self._release(holder, block)
        self._held -= len(holder.chain)
        del self._by_bit[holder.bit]
        self._sizes = {other.block_size for other in self._holders.values() if other.block_size}

    def forget(self, worker: str) -> None:
        """All ranks of ``worker`` are gone."""
        for source in [source for source in self._holders if source.worker == worker]:
            self.clear(source)

    def _holder(self, source: Source) -> _Holder:
        holder = self._holders.get(source)
        if holder is None:
            used = sum(self._by_bit)
            holder = self._holders[source] = _Holder(source, ~used & (used + 1))  # the lowest bit that nobody has
            self._by_bit[holder.bit] = holder
        return holder

    def _store(self, holder: _Holder, event: Stored) -> None:
        if not event.full:
            if event.group is not None:
                holder.partial_groups.add(event.group)
            return
        if not event.tokens:
            self._name(holder, event)
            return
        waiting = [event]
        while waiting:
            event = waiting.pop()
            parent = None if event.parent is None else holder.chain.get(event.parent)
            if parent is None and event.parent is not None:
                self._keep_orphan(holder, event.parent, event)
                continue
            self._take_in(holder, event, parent)
            if holder.orphans:
                for block in event.hashes:
                    waiting += holder.orphans.pop(block, ())

    def _take_in(self, holder: _Holder, event: Stored, parent: int | None) -> None:
        size = holder.block_size = event.block_size
        self._sizes.add(size)
        width = size * TOKEN_BYTES
        chain = _root(size, event.lora) if parent is None else parent
        for i, engine_hash in enumerate(event.hashes):
            keys = event.keys[i] if i < len(event.keys) else ()
            chain = _link(chain, event.tokens[i * width : (i + 1) * width], keys)
            if engine_hash not in holder.chain:
                if self.used_bytes >= self.budget_bytes:
                    self.refused += len(event.hashes) - i
                    holder.whole = False
                    return
                self._held += 1
            elif holder.chain[engine_hash] != chain:  # reused by the engine for other tokens
                self._release(holder, holder.chain[engine_hash])
            known = self._blocks.get(chain, 0) & holder.bit
            holder.chain[engine_hash] = chain
            self._blocks[chain] = self._blocks.get(chain, 0) | holder.bit
            self._set_tier(holder, chain, event.medium | (self._tier(holder, chain) if known else Medium(0)))

    def _name(self, holder: _Holder, event: Stored) -> None:
        """An offload that tells no tokens: the blocks are known, they are in one more place."""
        for engine_hash in event.hashes:
            if (chain := holder.chain.get(engine_hash)) is not None:
                self._set_tier(holder, chain, self._tier(holder, chain) | event.medium)

    def _keep_orphan(self, holder: _Holder, parent: BlockHash, event: Stored) -> None:
        self.orphaned += 1
        if sum(map(len, holder.orphans.values())) >= _MAX_ORPHANS:
            holder.whole = False
        else:
            holder.orphans.setdefault(parent, []).append(event)

    def _remove(self, holder: _Holder, event: Removed) -> None:
        for engine_hash in event.hashes:
            chain = holder.chain.get(engine_hash)
            if chain is None:
                _drop_orphans(holder, engine_hash)
                continue
            left = self._tier(holder, chain) & ~event.medium
            if left:
                self._set_tier(holder, chain, left)
            else:
                del holder.chain[engine_hash]
                self._held -= 1
                self._release(holder, chain)

    def _tier(self, holder: _Holder, chain: int) -> Medium:
        return holder.tiers.get(chain, Medium.GPU)

    def _set_tier(self, holder: _Holder, chain: int, tier: Medium) -> None:
        if tier == Medium.GPU:
            holder.tiers.pop(chain, None)
        else:
            holder.tiers[chain] = tier
        slow = self._tiered.get(chain, 0) & ~holder.bit | (0 if tier & Medium.GPU else holder.bit)
        if slow:
            self._tiered[chain] = slow
        else:
            self._tiered.pop(chain, None)

    def _release(self, holder: _Holder, chain: int) -> None:
        """``holder`` has this block no more."""
        self._set_tier(holder, chain, Medium.GPU)
        mask = self._blocks.get(chain, 0) & ~holder.bit
        if mask:
            self._blocks[chain] = mask
        else:
            self._blocks.pop(chain, None)


def _drop_orphans(holder: _Holder, engine_hash: BlockHash) -> None:
    for parent, events in list(holder.orphans.items()):
        left = [event for event in events if engine_hash not in event.hashes]
        if left:
            holder.orphans[parent] = left
        else:
            del holder.orphans[parent]


def _reuse(tier: Medium) -> float:
    return max(REUSE[medium] for medium in Medium if medium & tier)


def _root(block_size: int, lora: str) -> int:
    return xxhash.xxh3_64_intdigest(lora.encode("utf-8", "surrogatepass"), seed=block_size)


def _link(parent: int, tokens: bytes, keys: Sequence[str]) -> int:
    if keys:
        tokens += "".join([f"{len(key)}:{key}" for key in keys]).encode("utf-8", "surrogatepass")
    return xxhash.xxh3_64_intdigest(tokens, seed=parent)


__all__ = ["REUSE", "BlockIndex", "Chain", "Cleared", "Held", "PromptKey", "Source", "chain_of"]
