"""The exact index against an obvious one, both encodings of the events, and what hostile or odd events do."""

import contextlib
from array import array

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.prefix.block_index import BLOCK_BYTES, HELD_BYTES, BlockIndex, PromptKey, Source, chain_of
from policies.prefix.block_reference import ReferenceIndex
from policies.prefix.kv_decode import (
    MAX_BYTES,
    MAX_EVENTS,
    Cleared,
    DecodeError,
    Medium,
    Removed,
    Stored,
    decode_batch,
)

A, B = Source("http://a:1"), Source("http://b:1")
SOURCES = [A, Source("http://a:1", 1), B]
BLOCK_SIZE = {A: 2, SOURCES[1]: 2, B: 1}
TOKENS = st.lists(st.integers(0, 1), max_size=7)
KEYS = st.builds(PromptKey, st.sampled_from(["", "adapter"]), st.sampled_from([(), ("salt",), ("salt", "more")]))
MEDIUM = st.sampled_from(list(Medium))


def ids(tokens):
    return array("i", tokens).tobytes()


PLAIN = PromptKey()


def matches(index, tokens, key=PLAIN):
    chains = {size: chain_of(ids(tokens), size, key) for size in index.block_sizes}
    return {worker: held.tokens for worker, held in index.match(chains).items() if held.tokens}


class Engine:
    """Makes the events of an engine that caches prompts: its own hashes, parents before children, any eviction."""

    def __init__(self, source):
        self.source = source
        self.size = BLOCK_SIZE[source]
        self.blocks = {}  # hash -> places

    def store(self, tokens, key, medium):
        blocks = [tokens[: end + self.size] for end in range(0, len(tokens) - self.size + 1, self.size)]
        names = [repr((self.source, block, key)).encode() for block in blocks]
        known = 0
        while known < len(names) and names[known] in self.blocks:
            known += 1
        new = names[known:]
        for name in new:
            self.blocks.setdefault(name, set()).add(medium)
        if not new:
            return []
        keys = (key.salts,) if not known and key.salts else ()
        flat = ids(tokens[known * self.size : len(blocks) * self.size])
        return [Stored(new, names[known - 1] if known else None, flat, self.size, key.lora, keys, medium)]

    def remove(self, number, medium):
        name = list(self.blocks)[number % len(self.blocks)]
        self.blocks[name].discard(medium)
        if not self.blocks[name]:
            del self.blocks[name]
        return [Removed([name], medium)]

    def offload(self, number, medium):
        name = list(self.blocks)[number % len(self.blocks)]
        self.blocks[name].add(medium)
        return [Stored([name], None, b"", self.size, medium=medium)]


STEP = st.one_of(
    st.tuples(st.just("store"), TOKENS, KEYS, MEDIUM),
    st.tuples(st.just("remove"), st.integers(0, 20), MEDIUM),
    st.tuples(st.just("offload"), st.integers(0, 20), MEDIUM),
    st.tuples(st.just("clear")),
)


@given(steps=st.lists(st.tuples(st.sampled_from(SOURCES), STEP), max_size=25), asked=st.lists(st.tuples(TOKENS, KEYS)))
@settings(max_examples=300, deadline=None)
def test_it_answers_as_the_obvious_index(steps, asked):
    index, reference = BlockIndex(2**20), ReferenceIndex()
    engines = {source: Engine(source) for source in SOURCES}
    for source, (kind, *args) in steps:
        engine = engines[source]
        if kind == "clear":
            engine.blocks.clear()
            events = [Cleared()]
        elif kind != "store" and not engine.blocks:
            continue
        else:
            events = getattr(engine, kind)(*args)
        index.apply(source, events)
        reference.apply(source, events)
    for tokens, key in asked:
        assert matches(index, tokens, key) == {w: n for w, n in reference.match(ids(tokens), key).items() if n}
    for source, engine in engines.items():
        assert index.held(source) == len(engine.blocks)
    held = sum(len(engine.blocks) for engine in engines.values())
    assert index.used_bytes == BLOCK_BYTES * index.blocks + HELD_BYTES * held
    for source in SOURCES:
        index.forget(source.worker)
    assert (index.used_bytes, index.blocks, index.block_sizes) == (0, 0, set())


def test_the_last_token_is_never_taken_as_cached():
    index = BlockIndex(2**20)
    index.apply(A, [Stored([1, 2], None, ids([1, 2, 3, 4]), 2)])
    assert matches(index, [1, 2, 3, 4, 5]) == {A.worker: 4}
    assert matches(index, [1, 2, 3, 4]) == {A.worker: 2}
    assert matches(index, [1, 2]) == {}


def test_the_best_rank_is_told():
    index = BlockIndex(2**20)
    index.apply(Source("w", 0), [Stored([1], None, ids([1, 2]), 2)])
    index.apply(Source("w", 3), [Stored([1, 2], None, ids([1, 2, 3, 4]), 2)])
    held = index.match({2: chain_of(ids([1, 2, 3, 4, 5]), 2, PromptKey())})
    assert held["w"] == (4, 3)


def test_children_that_come_before_their_parent_wait_for_it():
    index = BlockIndex(2**20)
    index.apply(A, [Stored([3], 2, ids([3]), 1), Stored([2], 1, ids([2]), 1)])
    assert matches(index, [1, 2, 3, 4]) == {}
    index.apply(A, [Stored([1], None, ids([1]), 1)])
    assert matches(index, [1, 2, 3, 4]) == {A.worker: 3}
    assert index.orphaned == 2


def test_an_orphan_that_was_removed_does_not_come_back():
    index = BlockIndex(2**20)
    index.apply(A, [Stored([2], 1, ids([2]), 1), Removed([2]), Stored([1], None, ids([1]), 1)])
    assert matches(index, [1, 2, 3]) == {A.worker: 1}


def test_orphans_are_bounded():
    index = BlockIndex(2**30)
    index.apply(A, [Stored([n + 1], n, ids([n]), 1) for n in range(2, 5000)])
    index.apply(A, [Stored([1], None, ids([7]), 1), Stored([2], 1, ids([1]), 1)])
    assert 1000 < index.held(A) < 2000


def test_a_sliding_window_says_nothing_about_prefixes():
    index = BlockIndex(2**20)
    index.apply(A, [Stored([1], None, ids([1]), 1), Stored([1], None, ids([1]), 1, group=1, full=False)])
    index.apply(A, [Removed([1], group=1)])
    assert matches(index, [1, 2]) == {A.worker: 1}


def test_a_full_index_takes_nothing_more_and_stays_right():
    index = BlockIndex(3 * (BLOCK_BYTES + HELD_BYTES))
    index.apply(A, [Stored([1, 2, 3, 4, 5], None, ids([1, 2, 3, 4, 5]), 1)])
    assert (index.blocks, index.refused) == (3, 2)
    assert matches(index, [1, 2, 3, 4, 5]) == {A.worker: 3}
    index.apply(A, [Removed([3, 2]), Stored([9], 1, ids([9]), 1)])
    assert matches(index, [1, 9, 0]) == {A.worker: 2}
    assert not index.whole(A)
    index.apply(A, [Cleared(), Stored([1], None, ids([1]), 1)])
    assert index.whole(A)


# -- the wire ---------------------------------------------------------------------------------------------------------


def batch(*events, rank=None):
    return msgspec.msgpack.encode([12.5, list(events), *([] if rank is None else [rank])])


ARRAYS = [
    ["BlockStored", [7, 8], 6, [1, 2, 3, 4], 2, None, "CPU_PINNED", "lora", [["lora", "salt"], None]],
    ["BlockRemoved", [7], "GPU"],
    ["AllBlocksCleared"],
]
MAPS = [
    {
        "type": "BlockStored",
        "block_hashes": [7, 8],
        "parent_block_hash": 6,
        "token_ids": [1, 2, 3, 4],
        "block_size": 2,
        "lora_id": None,
        "medium": "CPU_PINNED",
        "lora_name": "lora",
        "extra_keys": [["lora", "salt"], None],
        "locality": "local",
        "session_id": "s",
    },
    {"type": "BlockRemoved", "block_hashes": [7], "medium": "GPU"},
    {"type": "AllBlocksCleared"},
]


@pytest.mark.parametrize("events", [ARRAYS, MAPS], ids=["array", "map"])
def test_both_encodings_say_the_same(events):
    stamp, decoded, rank, skipped = decode_batch(batch(*events, rank=3))
    assert (stamp, rank, skipped) == (12.5, 3, 0)
    assert decoded == [
        Stored([7, 8], 6, ids([1, 2, 3, 4]), 2, "lora", (("salt",), ()), Medium.CPU),
        Removed([7], Medium.GPU),
        Cleared(),
    ]


def test_an_extra_key_without_a_salt_keeps_its_place():
    [stored] = decode_batch(batch(["BlockStored", [7], None, [1], 1, None, "GPU", None, [["", "key"]]])).events
    assert stored.keys == (("", "key"),)


def test_the_short_events_of_older_engines_and_hashes_of_bytes():
    decoded = decode_batch(batch(["BlockStored", [b"\x01" * 32], None, [1, 2], 2, None], ["BlockRemoved", [-5]]))
    assert decoded.events == [Stored([b"\x01" * 32], None, ids([1, 2]), 2), Removed([-5])]
    assert decoded.rank == 0


def test_an_adapter_known_by_number_is_not_the_base_model():
    [stored] = decode_batch(batch(["BlockStored", [1], None, [1], 1, 4])).events
    assert stored.lora == "#4"


@pytest.mark.parametrize(
    "event",
    [
        ["BlockMoved", [1]],
        {"type": "BlockMoved"},
        {"no": "type"},
        7,
        ["BlockStored"],
        ["BlockStored", [1], None, [1, 2, 3], 2, None],
        ["BlockStored", [1], None, [2**40], 1, None],
        ["BlockStored", [1], None, [1], 0, None],
        ["BlockStored", ["text"], None, [1], 1, None],
    ],
)
def test_what_cannot_be_read_is_skipped_and_counted(event):
    decoded = decode_batch(batch(event, ["AllBlocksCleared"]))
    assert (decoded.events, decoded.skipped) == ([Cleared()], 1)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def test_limits():
    with pytest.raises(DecodeError, match="at most"):
        decode_batch(b"\x00" * (MAX_BYTES + 1))
    with pytest.raises(DecodeError, match=f"length <= {MAX_EVENTS}"):
        decode_batch(batch(*[["AllBlocksCleared"]] * (MAX_EVENTS + 1)))
    for levels, skipped in ((10, 0), (20, 1), (500, 1)):
        event = ["BlockStored", [1], None, [1], 1, None, None, None, deep(levels)]
        assert decode_batch(batch(event)).skipped == skipped


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93", batch()[:-1], b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff"])
def test_garbage_is_one_error(payload):
    with pytest.raises(DecodeError):
        decode_batch(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_an_error(payload):
    with contextlib.suppress(DecodeError):
        decode_batch(payload)
