"""The tree over two tiers against the events it tells and the copies it asks for."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.cache import PageAllocator
from backend.cache.events import BlockEvents, BlockRemoved, CacheLog
from backend.cache.host_tree import WRITE_POLICIES, HostSettings, HostTree
from policies.prefix.block_index import BlockIndex, PromptKey, Source, chain_of
from policies.prefix.kv_decode import decode_batch

TOKENS = st.lists(st.integers(0, 1), max_size=12)
NAMESPACE = st.sampled_from(["", "4:salt"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), TOKENS, NAMESPACE),
        st.tuples(st.just("use"), TOKENS, NAMESPACE),
        st.tuples(st.just("evict"), st.integers(1, 12)),
    ),
    min_size=5,
    max_size=40,
)


def array(values):
    return np.array(values, np.int32)


class Tiers:
    """A tree with its device pages, and what lies on every page of both tiers when its moves are carried out."""

    def __init__(self, page=1, host_pages=20, policy="write_back", device_pages=16):
        self.page = page
        self.tree = HostTree(page, "lru", HostSettings(host_pages, policy, load_min=1))
        self.pool = PageAllocator(device_pages)
        self.device, self.host = {}, {}

    def insert(self, tokens, namespace=""):
        count = len(tokens) // self.page
        self.make_room(count)
        if count > self.pool.free_pages:
            return
        own = self.pool.alloc(count)
        for i, page in enumerate(own.tolist()):
            self.device[page] = (namespace, tuple(tokens[: (i + 1) * self.page]))
        tree = self.tree.insert(array(tokens[: count * self.page]), own, namespace)
        self.pool.release(own[own != tree.pages])
        self.carry_out()

    def use(self, tokens, namespace=""):
        """Match, fetch what is absent, and let go again: the pages of the match."""
        match = self.tree.match(array(tokens), namespace)
        self.tree.lock(match.node)
        self.make_room(match.absent)
        fetched = array([])
        if match.absent <= self.pool.free_pages:
            fetched = self.pool.alloc(match.absent)
            self.tree.restore(match.node, fetched)
        self.carry_out()
        self.tree.unlock(match.node)
        return [*match.pages.tolist(), *fetched.tolist()]

    def make_room(self, count):
        missing = count - self.pool.free_pages
        if missing > 0:
            self.evict(missing)

    def evict(self, count):
        self.pool.release(self.tree.evict(count))
        self.carry_out()

    def carry_out(self):
        transfers = self.tree.moves.take()
        for move in transfers.moves if transfers else ():
            for device, host in zip(move.device.tolist(), move.host.tolist(), strict=True):
                if move.to_host:
                    self.host[host] = self.device[device]
                else:
                    self.device[device] = self.host[host]


def spelled(node):
    return [] if node.parent is None else [*spelled(node.parent), *node.key.tolist()]


def blocks(tiers, name):
    """(salt, prefix) of every block of one tier."""
    found = set()
    for salt, root in tiers.tree._roots.items():
        below = list(root.children.values())
        while below:
            node = below.pop()
            below += node.children.values()
            text, start = spelled(node), len(spelled(node.parent))
            ends = range(start + tiers.page, len(text) + 1, tiers.page)
            found |= {(salt, tuple(text[:end])) for end in ends if len(getattr(node, name))}
    return found


@given(page=st.sampled_from([1, 2]), host=st.integers(1, 30), policy=st.sampled_from(list(WRITE_POLICIES)), steps=STEPS)
@settings(max_examples=200, deadline=None)
def test_pages_hold_what_the_tree_says_and_events_tell_it(page, host, policy, steps):
    tiers = Tiers(page, host, policy)
    tiers.tree.log = CacheLog()
    told = {"GPU": {}, "CPU": {}}
    events = BlockEvents(page)
    for step, *args in steps:
        if step == "use":
            tokens, namespace = args
            for i, place in enumerate(tiers.use(tokens, namespace)):
                assert tiers.device[place] == (namespace, tuple(tokens[: (i + 1) * page]))
        else:
            getattr(tiers, step)(*args)
        held, free = tiers.tree.host_books()
        assert sorted([*held, *free]) == list(range(1, host + 1))
        for event in events.events(tiers.tree.log.take()):
            follow(told, event)
        assert {spell(told, block) for block in told["GPU"]} == blocks(tiers, "pages")
        assert {spell(told, block) for block in told["CPU"]} == blocks(tiers, "host")


def follow(told, event):
    tier = told[event.medium]
    if isinstance(event, BlockRemoved):
        for block in event.block_hashes:
            del tier[block]
        return
    parent, size = event.parent_block_hash, event.block_size
    assert parent is None or parent in told["GPU"]
    for i, block in enumerate(event.block_hashes):
        assert block not in tier
        salts = event.extra_keys[i] if event.extra_keys else None
        tier[block] = (parent, tuple(event.token_ids[i * size : (i + 1) * size]), tuple(salts or ()))
        told.setdefault("all", {})[block] = tier[block]
        parent = block


def spell(told, block):
    parent, tokens, salts = told["all"][block]
    if parent is None:
        return "".join(f"{len(salt)}:{salt}" for salt in salts), tokens
    salt, above = spell(told, parent)
    return salt, above + tokens


def test_the_routers_index_knows_what_only_the_host_has():
    tiers = Tiers(page=2)
    tiers.tree.log = CacheLog()
    events, index, source = BlockEvents(2), BlockIndex(10**6), Source("w")
    prompt = [5, 6, 7, 8, 9, 9, 1]

    def held():
        batch = msgspec.msgpack.encode((0.0, events.events(tiers.tree.log.take()), 0))
        index.apply(source, decode_batch(batch).events)
        return index.match({2: chain_of(array(prompt).tobytes(), 2, PromptKey())}).get("w")

    tiers.insert(prompt[:6])
    assert held().tokens == 6
    tiers.evict(3)
    assert held().tokens == 4  # on the host: worth three quarters
    tiers.use(prompt)
    assert held().tokens == 6
    tiers.pool.release(tiers.tree.reset())
    assert held() is None


def test_write_through_copies_at_once_and_evicts_for_nothing():
    tiers = Tiers(policy="write_through")
    tiers.insert([1, 2, 3])
    assert len(tiers.host) == 3
    tiers.tree.evict(3)
    transfers = tiers.tree.moves.take()
    assert (transfers.moves, transfers.fence) == ((), True)
    assert tiers.tree.used_host_pages == 3


def test_selective_write_through_copies_what_is_used_again():
    tiers = Tiers(policy="write_through_selective")
    tiers.insert([1, 2, 3])
    assert tiers.tree.used_host_pages == 0
    tiers.use([1, 2, 3])
    tiers.insert([1, 2, 3])
    assert tiers.tree.used_host_pages == 3


def test_the_host_drops_its_least_recently_used_leaf():
    tiers = Tiers(host_pages=4)
    for tokens in ([1, 1], [2, 2], [3, 3]):
        tiers.insert(tokens)
    tiers.evict(4)
    tiers.use([1, 1])
    tiers.evict(2)
    assert [tiers.tree.matched_tokens(array(t)) for t in ([1, 1], [2, 2], [3, 3])] == [2, 0, 2]


def test_a_locked_prefix_stays_on_the_host_too():
    tiers = Tiers(host_pages=2)
    tiers.insert([1, 1])
    tiers.evict(2)
    match = tiers.tree.match(array([1, 1]))
    tiers.tree.lock(match.node)
    tiers.insert([2, 2])
    tiers.evict(2)
    assert tiers.tree.matched_tokens(array([1, 1])) == 2
    assert tiers.tree.matched_tokens(array([2, 2])) == 0


def test_little_is_not_worth_fetching():
    tree = HostTree(1, "lru", HostSettings(8, "write_back", load_min=3))
    pool = PageAllocator(8)
    tree.insert(array([1, 2]), pool.alloc(2))
    pool.release(tree.evict(2))
    match = tree.match(array([1, 2]))
    assert (match.absent, match.node.parent) == (0, None)


def test_what_was_computed_again_needs_no_fetching():
    tiers = Tiers()
    tiers.insert([1, 2, 3])
    tiers.evict(3)
    tiers.insert([1, 2, 3, 4])
    assert tiers.tree.match(array([1, 2, 3, 4])).absent == 0
    assert tiers.tree.cached_pages == 4
    assert tiers.tree.loaded_pages == 0


def test_an_unknown_write_policy_is_named():
    with pytest.raises(ValueError, match="'later' is unknown; known: write_through, write_through_selective"):
        HostTree(1, "lru", HostSettings(4, "later"))


def test_what_only_the_host_has_goes_with_the_prefix_before_it():
    tree = HostTree(1, "lru", HostSettings(2, "write_through", load_min=1))
    pool = PageAllocator(8)
    tree.insert(array([1, 2, 3]), pool.alloc(3))  # larger than the host's room
    first = tree.match(array([1, 2, 3])).pages
    tree.insert(array([1, 2, 3, 4]), np.concatenate((first, pool.alloc(1))))
    assert tree.used_host_pages == 1
    pool.release(tree.evict(4))
    assert (tree.cached_pages, tree.used_host_pages, pool.free_pages) == (0, 0, 8)
    match = tree.match(array([1, 2, 3, 4]))
    assert (len(match.pages), match.absent) == (0, 0)
