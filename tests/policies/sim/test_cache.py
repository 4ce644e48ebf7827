"""The simulated prefix cache against a plain list of blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sim.cache import PrefixCache

BLOCK = 4
PARENTS = {0: None, 1: None, 2: 0, 3: 0, 4: 2, 5: 2, 6: 4}  # a small tree of segments
SIZES = {segment: BLOCK * (1 + segment % 3) for segment in PARENTS}


def path(segment):
    chain = []
    while segment is not None:
        chain.append(segment)
        segment = PARENTS[segment]
    return tuple(reversed(chain))


def sizes(segments):
    return tuple(SIZES[segment] for segment in segments)


class BlockList:
    """Every block by itself: (segment, number), idle ones in the order of their eviction."""

    def __init__(self, capacity):
        self.room = capacity // BLOCK
        self.users = {}  # block -> requests that pin it
        self.ready = set()
        self.idle = []
        self.outputs = 0

    def blocks(self, segments):
        return [(segment, index) for segment in segments for index in range(SIZES[segment] // BLOCK)]

    def match(self, segments):
        count = 0
        for block in self.blocks(segments):
            if block not in self.ready:
                break
            count += BLOCK
        total = sum(sizes(segments))
        return min(count, (total - 1) // BLOCK * BLOCK)

    def acquire(self, segments, output):
        blocks = self.blocks(segments)
        cached = self.match(segments)
        missing = sum(block not in self.users for block in blocks) + output // BLOCK
        free = self.room - len(self.users) - self.outputs
        evictable = [block for block in self.idle if block not in blocks]
        if missing > free + len(evictable):
            return None
        self.idle = evictable
        for _ in range(missing - free):
            victim = self.idle.pop(0)
            del self.users[victim]
            self.ready.discard(victim)
        for block in blocks:
            self.users[block] = self.users.get(block, 0) + 1
        self.outputs += output // BLOCK
        return cached

    def release(self, segments, output):
        self.outputs -= output // BLOCK
        for block in reversed(self.blocks(segments)):
            self.users[block] -= 1
            if not self.users[block]:
                self.idle.append(block)


@given(
    st.integers(6, 12).map(lambda blocks: blocks * BLOCK),
    st.lists(st.tuples(st.sampled_from(sorted(PARENTS)), st.integers(0, 2), st.integers(0, 3)), max_size=40),
)
def test_equals_a_list_of_blocks(capacity, steps):
    """Requests come, are computed at once, and leave after a few others have come."""
    cache, plain, running = PrefixCache(capacity, BLOCK), BlockList(capacity), []
    for segment, output, stay in steps:
        segments, output = path(segment), output * BLOCK
        cached = cache.acquire(segments, sizes(segments), output)
        assert cached == plain.acquire(segments, output)
        if cached is not None:
            cache.commit(segments, sizes(segments))
            plain.ready.update(plain.blocks(segments))
            running.append((segments, output))
        while len(running) > stay:
            segments, output = running.pop(0)
            cache.release(segments, output, None)
            plain.release(segments, output)
        for other in PARENTS:
            assert cache.match(path(other), sizes(path(other))) == plain.match(path(other))
        assert cache.free == (plain.room - len(plain.users) - plain.outputs) * BLOCK
        assert cache.available == cache.free + len(plain.idle) * BLOCK


def test_what_is_not_computed_yet_is_no_hit():
    cache = PrefixCache(64, BLOCK)
    assert cache.acquire((0,), (16,), 0) == 0
    assert cache.match((0, 2), (16, 8)) == 0
    cache.commit((0,), (16,))
    assert cache.match((0, 2), (16, 8)) == 16


def test_an_answer_that_will_be_asked_for_stays():
    cache = PrefixCache(64, BLOCK)
    cache.acquire((0,), (16,), 8)
    cache.commit((0,), (16,))
    cache.release((0,), 8, answer=9)
    assert cache.match((0, 9, 5), (16, 8, 4)) == 24


def test_a_cache_without_a_block_is_refused():
    with pytest.raises(ValueError, match="got 3"):
        PrefixCache(3, BLOCK)
