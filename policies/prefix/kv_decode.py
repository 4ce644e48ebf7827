"""KV events off the wire: msgpack batches of SGLang, vLLM and our own backend, in the array and the map encoding.

What comes from the network is bounded before it is believed: size, number of events, depth. An event of an unknown kind
or shape is counted and skipped; the rest of its batch still counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import IntFlag
from typing import Annotated, Any, NamedTuple

import msgspec

MAX_BYTES = 16 * 2**20
MAX_EVENTS = 2**18  # SGLang tells each page by itself, and its pages are single tokens: a chunk is thousands
MAX_DEPTH = 16

BlockHash = int | bytes  # opaque: engines salt theirs
FULL_ATTENTION = frozenset({"full_attention", "mla_attention", "sink_full_attention"})


class Medium(IntFlag):
    """Where an engine keeps a block; a block may be in several places."""

    GPU = 1
    CPU = 2
    DISK = 4


class Stored(NamedTuple):
    """Blocks that follow ``parent``. ``tokens``: int32 of all of them; empty when the engine only names the blocks."""

    hashes: Sequence[BlockHash]
    parent: BlockHash | None
    tokens: bytes
    block_size: int
    lora: str = ""
    keys: tuple[tuple[str, ...], ...] = ()  # a block's salts and the like; may be shorter than ``hashes``
    medium: Medium = Medium.GPU
    group: int | None = None
    full: bool = True  # keeps whole prefixes; a sliding window's blocks say nothing about reuse


class Removed(NamedTuple):
    hashes: Sequence[BlockHash]
    medium: Medium = Medium.GPU
    group: int | None = None


class Cleared(NamedTuple):
    pass


KVEvent = Stored | Removed | Cleared


class Batch(NamedTuple):
    stamp: float  # seconds of the engine's wall clock
    events: list[KVEvent]
    rank: int  # data-parallel rank
    skipped: int  # events that could not be read


class DecodeError(ValueError):
    """A payload that is no batch of events, or too large a one."""


class _Stored(msgspec.Struct, tag="BlockStored"):
    block_hashes: list[BlockHash]
    parent_block_hash: BlockHash | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: Any = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None


class _StoredArray(_Stored, array_like=True, tag="BlockStored"):
    pass


class _Removed(msgspec.Struct, tag="BlockRemoved"):
    block_hashes: list[BlockHash]
    medium: str | None = None
    group_idx: int | None = None


class _RemovedArray(_Removed, array_like=True, tag="BlockRemoved"):
    pass


class _Cleared(msgspec.Struct, tag="AllBlocksCleared"):
    pass


class _ClearedArray(_Cleared, array_like=True, tag="AllBlocksCleared"):
    pass


class _Batch(msgspec.Struct, array_like=True):
    ts: float
    events: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_EVENTS)]
    rank: int | None = None


_BATCH = msgspec.msgpack.Decoder(_Batch)
_MAP = msgspec.msgpack.Decoder(_Stored | _Removed | _Cleared)
_ARRAY = msgspec.msgpack.Decoder(_StoredArray | _RemovedArray | _ClearedArray)


def decode_batch(payload: bytes) -> Batch:
    """Raises :class:`DecodeError`."""
    if len(payload) > MAX_BYTES:
        raise DecodeError(f"a batch of {len(payload)} bytes; at most {MAX_BYTES} are read")
    try:
        batch = _BATCH.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"no batch of KV events: {error}") from None
    events = [event for raw in batch.events if (event := _event(raw)) is not None]
    return Batch(batch.ts, events, batch.rank or 0, len(batch.events) - len(events))


def _event(raw: msgspec.Raw) -> KVEvent | None:
    first = bytes(memoryview(raw)[:1])
    decoder = _MAP if first == b"\xde" or first == b"\xdf" or b"\x80" <= first <= b"\x8f" else _ARRAY
    try:
        event = decoder.decode(raw)
        if isinstance(event, _Stored):
            return _stored(event)
        if isinstance(event, _Removed):
            return Removed(event.block_hashes, medium(event.medium), event.group_idx)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        return None
    return Cleared()


def _stored(event: _Stored) -> Stored | None:
    tokens = array("i", event.token_ids).tobytes()
    if event.block_size < 1 or (tokens and len(event.token_ids) != len(event.block_hashes) * event.block_size):
        return None
    if not _shallow(event.extra_keys, MAX_DEPTH):
        return None
    lora = event.lora_name or ("" if event.lora_id is None else f"#{event.lora_id}")
    return Stored(
        event.block_hashes,
        event.parent_block_hash,
        tokens,
        event.block_size,
        lora,
        _keys(event.extra_keys, lora),
        medium(event.medium),
        event.group_idx,
        event.kv_cache_spec_kind is None or event.kv_cache_spec_kind in FULL_ATTENTION,
    )


def medium(name: str | None) -> Medium:
    """``GPU`` (also when not said), ``CPU``, ``CPU_PINNED``, ``DISK``...; an unknown tier counts as the slowest."""
    if name is None or name.upper().startswith("GPU"):
        return Medium.GPU
    return Medium.CPU if name.upper().startswith(("CPU", "HOST")) else Medium.DISK


def _keys(extra: Any, lora: str) -> tuple[tuple[str, ...], ...]:
    """The keys of each block, without the adapter's name, which vLLM repeats among them."""
    if not isinstance(extra, list):
        return ()
    blocks = tuple(
        tuple(_word(key) for key in block if not lora or key != lora) if isinstance(block, list) else ()
        for block in extra
    )
    return blocks if any(blocks) else ()


def _word(key: Any) -> str:
    return key if isinstance(key, str) else msgspec.json.encode(key).decode()


def _shallow(value: Any, depth: int) -> bool:
    if not isinstance(value, list | dict):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_shallow(item, depth - 1) for item in inner)
