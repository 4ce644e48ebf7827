"""The radix cache against a dictionary from every cached page-aligned prefix to its last page."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from backend.cache import PageAllocator, RadixCache

TOKENS = st.lists(st.integers(0, 2), max_size=14)
NAMESPACE = st.sampled_from(["", "salt"])


def array(values):
    return np.array(values, np.int32)


class RadixMachine(RuleBasedStateMachine):
    locked = Bundle("locked")

    @initialize(page_size=st.sampled_from([1, 2, 4]), eviction=st.sampled_from(["lru", "lfu", "priority"]))
    def start(self, page_size, eviction):
        self.page = page_size
        self.cache = RadixCache(page_size, eviction)
        self.pool = PageAllocator(24)
        self.known = {}  # (namespace, prefix) -> page
        self.locks = {}  # (namespace, prefix) -> count
        self.used = {}  # (namespace, prefix) -> last use
        self.clock = 0

    def prefixes(self, namespace, tokens):
        count = len(tokens) // self.page
        return [(namespace, tuple(tokens[: (i + 1) * self.page])) for i in range(count)]

    def expected(self, namespace, tokens):
        pages = []
        for prefix in self.prefixes(namespace, tokens):
            if prefix not in self.known:
                break
            pages.append(self.known[prefix])
        return pages

    def touch(self, namespace, tokens):
        self.clock += 1
        for prefix in self.prefixes(namespace, tokens)[: len(self.expected(namespace, tokens))]:
            self.used[prefix] = self.clock

    @rule(tokens=TOKENS, namespace=NAMESPACE)
    def match(self, tokens, namespace):
        found = self.cache.match(array(tokens), namespace)
        assert found.pages.tolist() == self.expected(namespace, tokens)
        assert self.cache.matched_tokens(array(tokens), namespace) == len(found.pages) * self.page
        self.touch(namespace, tokens)

    @rule(tokens=TOKENS, namespace=NAMESPACE)
    def insert(self, tokens, namespace):
        prefixes = self.prefixes(namespace, tokens)
        if len(prefixes) > self.pool.free_pages:
            return
        own = self.pool.alloc(len(prefixes))
        have = len(self.expected(namespace, tokens))
        result = self.cache.insert(array(tokens[: len(prefixes) * self.page]), own, namespace)
        self.pool.release(own[own != result.pages])
        for prefix, page in zip(prefixes[have:], own[have:], strict=True):
            self.known[prefix] = page
        assert result.pages.tolist() == self.expected(namespace, tokens)
        self.touch(namespace, tokens)

    @rule(target=locked, tokens=TOKENS, namespace=NAMESPACE)
    def lock(self, tokens, namespace):
        found = self.cache.match(array(tokens), namespace)
        self.touch(namespace, tokens)
        held = self.prefixes(namespace, tokens)[: len(found.pages)]
        if not held:
            return multiple()
        self.cache.lock(found.node)
        for prefix in held:
            self.locks[prefix] = self.locks.get(prefix, 0) + 1
        return found.node, held

    @rule(lock=consumes(locked))
    def unlock(self, lock):
        node, held = lock
        self.cache.unlock(node)
        for prefix in held:
            self.locks[prefix] -= 1

    @rule(count=st.integers(1, 30))
    def evict(self, count):
        evictable = {prefix for prefix in self.known if not self.locks.get(prefix)}
        freed = self.cache.evict(count).tolist()
        assert len(freed) >= min(count, len(evictable))
        gone = {prefix for prefix in evictable if self.known[prefix] in freed}
        assert sorted(self.known[prefix] for prefix in gone) == sorted(freed)
        kept = [prefix for prefix in self.known if prefix not in gone]
        for namespace, tokens in kept:  # a prefix never goes before what extends it
            assert all(prefix in kept for prefix in self.prefixes(namespace, tokens))
        for prefix in gone:
            del self.known[prefix], self.used[prefix]
        self.pool.release(array(freed))

    @invariant()
    def books_add_up(self):
        pages = sorted(self.known.values())
        assert sorted(self.cache.all_pages().tolist()) == pages
        assert self.cache.cached_pages == len(pages)
        assert self.cache.evictable_pages == sum(not self.locks.get(prefix) for prefix in self.known)
        assert self.pool.free_pages == self.pool.num_pages - len(pages)


TestRadix = RadixMachine.TestCase
TestRadix.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def fill(cache, pool, sequences):
    for tokens in sequences:
        cache.insert(array(tokens), pool.alloc(len(tokens) // cache.page_size))


def test_least_recently_used_leaf_goes_first():
    cache, pool = RadixCache(1), PageAllocator(20)
    fill(cache, pool, [[1, 2], [3, 4], [5, 6]])
    cache.match(array([1, 2]))
    assert len(cache.evict(1)) == 2
    assert cache.matched_tokens(array([3, 4])) == 0
    assert cache.matched_tokens(array([1, 2])) == cache.matched_tokens(array([5, 6])) == 2


def test_least_frequently_used_leaf_goes_first():
    cache, pool = RadixCache(1, "lfu"), PageAllocator(20)
    fill(cache, pool, [[1, 2], [3, 4], [5, 6]])
    for tokens in ([1, 2], [1, 2], [3, 4], [5, 6], [5, 6]):
        cache.match(array(tokens))
    cache.evict(1)
    assert [cache.matched_tokens(array(tokens)) for tokens in ([1, 2], [3, 4], [5, 6])] == [2, 0, 2]


def test_the_leaf_of_the_lowest_priority_goes_first():
    cache, pool = RadixCache(1, "priority"), PageAllocator(20)
    for tokens, priority in (([1, 2], 5), ([3, 4], 0), ([5, 6], 9)):
        cache.insert(array(tokens), pool.alloc(2), priority=priority)
    cache.match(array([3, 4]))
    cache.evict(3)
    assert [cache.matched_tokens(array(tokens)) for tokens in ([1, 2], [3, 4], [5, 6])] == [0, 0, 2]


def test_a_leaf_whose_priority_rises_can_still_be_evicted():
    cache, pool = RadixCache(1, "priority"), PageAllocator(4)
    cache.insert(array([1, 2]), pool.alloc(2))
    cache.insert(array([1, 2]), pool.alloc(2), priority=7)
    assert len(cache.evict(2)) == 2


def test_an_unknown_eviction_policy_is_named():
    with pytest.raises(ValueError, match="'clock' is unknown; known: lru, lfu, priority"):
        RadixCache(1, "clock")


def test_a_shared_prefix_outlives_the_leaf_that_extends_it():
    cache, pool = RadixCache(1), PageAllocator(20)
    cache.insert(array([1, 2, 3]), pool.alloc(3))
    shared = cache.match(array([1, 2]))
    cache.insert(array([1, 2, 9]), np.concatenate((shared.pages, pool.alloc(1))))
    assert len(cache.evict(1)) == 1
    assert cache.matched_tokens(array([1, 2, 9])) == 3
    assert cache.matched_tokens(array([1, 2, 3])) == 2


def test_locked_pages_stay_whatever_is_asked():
    cache, pool = RadixCache(2), PageAllocator(20)
    fill(cache, pool, [[1, 1, 2, 2], [1, 1, 3, 3]])
    node = cache.match(array([1, 1, 2, 2])).node
    cache.lock(node)
    assert len(cache.evict(100)) == 1
    assert cache.matched_tokens(array([1, 1, 2, 2])) == 4
    cache.unlock(node)
    assert len(cache.reset()) == 2
    assert cache.cached_pages == 0


def test_namespaces_share_nothing():
    cache, pool = RadixCache(1), PageAllocator(4)
    cache.insert(array([1, 2]), pool.alloc(2), "a")
    assert cache.matched_tokens(array([1, 2]), "b") == 0
    assert cache.matched_tokens(array([1, 2]), "a") == 2


def test_unlocking_twice_is_an_error():
    cache, pool = RadixCache(1), PageAllocator(4)
    node = cache.insert(array([1]), pool.alloc(1)).node
    cache.lock(node)
    cache.unlock(node)
    with pytest.raises(ValueError, match="unlock without a lock"):
        cache.unlock(node)


def test_tokens_must_fill_their_pages():
    with pytest.raises(ValueError, match="3 tokens do not fill 1 pages of 2"):
        RadixCache(2).insert(array([1, 2, 3]), array([1]))


def test_the_heap_of_leaves_stays_bounded():
    cache, pool = RadixCache(1), PageAllocator(8)
    fill(cache, pool, [[1, 2], [3, 4]])
    for _ in range(2000):
        cache.match(array([1, 2]))
    assert len(cache._leaves) < 200
