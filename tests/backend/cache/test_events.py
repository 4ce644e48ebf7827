"""KV events against the tree they come from: whoever follows them knows exactly which blocks are cached."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.schema import RequestFields
from backend.cache import PageAllocator, RadixCache
from backend.cache.events import AllBlocksCleared, BlockEvents, BlockRemoved, BlockStored, CacheLog

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.lists(st.integers(0, 2), max_size=14), st.sampled_from(["", "4:salt"])),
        st.tuples(st.just("evict"), st.integers(1, 4)),
        st.tuples(st.just("reset")),
        st.tuples(st.just("lock"), st.lists(st.integers(0, 2), max_size=14)),
    ),
    max_size=25,
)


class Follower:
    """Knows blocks by hash, each with its parent and tokens, from events alone."""

    def __init__(self):
        self.blocks = {}

    def apply(self, event):
        if isinstance(event, AllBlocksCleared):
            self.blocks.clear()
        elif isinstance(event, BlockRemoved):
            for block in event.block_hashes:
                del self.blocks[block]
        else:
            parent = event.parent_block_hash
            assert parent is None or parent in self.blocks
            for i, block in enumerate(event.block_hashes):
                tokens = event.token_ids[i * event.block_size : (i + 1) * event.block_size]
                salts = event.extra_keys[i] if event.extra_keys else None
                assert block not in self.blocks
                self.blocks[block] = (parent, tuple(tokens), tuple(salts or ()))
                parent = block

    def prompts(self):
        """Every cached prefix: (salts, tokens)."""
        return {self.spelled(block) for block in self.blocks}

    def spelled(self, block):
        parent, tokens, salts = self.blocks[block]
        if parent is None:
            return salts, tokens
        above = self.spelled(parent)
        return above[0], above[1] + tokens


def held(cache, page, texts):
    """The same from the tree itself."""
    found = set()
    for salt, tokens in texts:
        length = cache.matched_tokens(np.array(tokens, np.int32), salt)
        parts = (salt.partition(":")[2],) if salt else ()
        found |= {(parts, tuple(tokens[:end])) for end in range(page, length + 1, page)}
    return found


@given(page=st.sampled_from([1, 2, 4]), steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_events_tell_what_is_cached(page, steps):
    cache, pool = RadixCache(page), PageAllocator(64)
    cache.log = CacheLog()
    events, follower, texts, locked = BlockEvents(page), Follower(), [], []
    for step, *args in steps:
        if step == "insert":
            tokens, salt = args
            pages = len(tokens) // page
            if pages > pool.free_pages:
                continue
            own = pool.alloc(pages)
            tree = cache.insert(np.array(tokens[: pages * page], np.int32), own, salt)
            pool.release(own[own != tree.pages])
            texts.append((salt, tokens))
        elif step == "evict":
            pool.release(cache.evict(args[0]))
        elif step == "reset":
            pool.release(cache.reset())
        else:
            locked.append(cache.match(np.array(args[0], np.int32)).node)
            cache.lock(locked[-1])
        for event in events.events(cache.log.take()):
            follower.apply(event)
        assert follower.prompts() == held(cache, page, texts)
        assert len(follower.blocks) == cache.cached_pages


def test_the_array_encoding_of_other_engines():
    events = BlockEvents(2)
    log = CacheLog()
    log.stored(None, np.array([1, 2, 3, 4], np.int32), np.array([7, 9], np.int32), "3:abcde")
    [stored] = events.events(log.take())
    first, second = stored.block_hashes
    row = msgspec.msgpack.decode(msgspec.msgpack.encode(stored))
    assert row[:6] == ["BlockStored", [first, second], None, [1, 2, 3, 4], 2, None]
    assert row[6:] == ["GPU", None, [["abc", "de"], None]]

    log.stored(9, np.array([5, 6], np.int32), np.array([3], np.int32), "3:abcde")
    log.removed(np.array([3], np.int32))
    stored, removed = events.events(log.take())
    assert stored.parent_block_hash == second
    assert stored.extra_keys is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(removed)) == ["BlockRemoved", stored.block_hashes, "GPU"]
    assert all(0 <= block < 2**63 for block in [first, second, *stored.block_hashes])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cache_salt": "5:x"}, ["5:x"]),
        ({"extra_key": "k"}, ["", "k"]),
        ({"cache_salt": "a", "extra_key": "b"}, ["a", "b"]),
    ],
)
def test_salts_are_told_as_the_client_gave_them(fields, told):
    log = CacheLog()
    log.stored(None, np.array([1], np.int32), np.array([1], np.int32), RequestFields(**fields).namespace)
    [stored] = BlockEvents(1).events(log.take())
    assert stored.extra_keys == [told]


def test_equal_tokens_in_different_places_are_different_blocks():
    log = CacheLog()
    log.stored(None, np.array([1, 1], np.int32), np.array([1, 2], np.int32), "")
    log.stored(None, np.array([1], np.int32), np.array([3], np.int32), "1:s")
    plain, salted = BlockEvents(1).events(log.take())
    assert len({*plain.block_hashes, *salted.block_hashes}) == 3
    assert isinstance(plain, BlockStored)
