"""The text tree against its slow reference, then the behaviour that people rely on."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policies.prefix import node, text_tree
from policies.prefix.reference import ReferenceTree
from policies.prefix.text_tree import FORK_BYTES, NODE_BYTES, TextTree

BUDGET = 12 * NODE_BYTES + 6 * FORK_BYTES
texts = st.binary(max_size=10).map(lambda raw: bytes(b"ab"[byte % 2] for byte in raw))
workers = st.sampled_from(["w0", "w1", "w2"])
spaces = st.sampled_from(["", "lora"])


class TreeAgainstReference(RuleBasedStateMachine):
    """Any order of operations gives the same matches, the same evictions and the same byte count."""

    block = 1

    def __init__(self):
        super().__init__()
        self.tree = TextTree(BUDGET, self.block)
        self.oracle = ReferenceTree(BUDGET, self.block)
        self.now = 0.0

    @rule(text=texts, worker=workers, space=spaces)
    def insert(self, text, worker, space):
        self.now += 1.0
        self.tree.insert(text, worker, space, self.now)
        self.oracle.insert(text, worker, space, self.now)

    @rule(text=texts, worker=workers, space=spaces)
    def place(self, text, worker, space):
        """Look first, then insert: the second walk takes the first one's way."""
        self.now += 1.0
        known = max(self.oracle.match(text, space).values(), default=0)
        held = self.oracle.match(text, space).get(worker, 0)
        self.tree.walk(text, space)
        found = self.tree.insert(text, worker, space, self.now)
        assert (found.held, found.known) == (held, known)
        self.oracle.insert(text, worker, space, self.now)

    @rule(text=texts, space=spaces)
    def match(self, text, space):
        assert self.tree.match(text, space) == self.oracle.match(text, space)

    @rule(text=texts, worker=workers, space=spaces)
    def touched(self, text, worker, space):
        assert self.tree.touched(text, worker, space) == self.oracle.touched(text, worker, space)

    @precondition(lambda self: any(self.oracle.prompts.values()))
    @rule(data=st.data(), length=st.integers(0, 10), age=st.integers(0, 8))
    def trim(self, data, length, age):
        known = [(worker, *prompt) for worker, prompts in self.oracle.prompts.items() for prompt in prompts]
        worker, space, text = data.draw(st.sampled_from(known))
        before = self.now - age
        trimmed = self.tree.trim(text, worker, length, space, before=before)
        assert trimmed == self.oracle.trim(text, worker, length, space, before=before)

    @rule(text=texts, worker=workers)
    def trim_unknown(self, text, worker):
        if ("", self.oracle.cut(text)) not in self.oracle.prompts.get(worker, {}):
            assert self.tree.trim(text, worker, 0, before=self.now + 1) == 0

    @rule(worker=workers)
    def forget(self, worker):
        self.tree.forget(worker)
        self.oracle.forget(worker)

    @invariant()
    def same_state(self):
        assert self.tree.used_bytes == self.oracle.used_bytes <= BUDGET
        assert self.tree.nodes == self.oracle.nodes
        for worker in ("w0", "w1", "w2"):
            assert self.tree.held(worker) == self.oracle.held(worker)
            assert all(
                self.tree.match(text, space)[worker] == len(text) for space, text in self.oracle.prompts.get(worker, {})
            )


class BlocksAgainstReference(TreeAgainstReference):
    """The same in blocks of three bytes, with the tables for many kids and the edges of long prompts."""

    block = 3

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(node, "LONGEST_CHUNK", 2)
        self.patch.setattr(node, "COUNTED", 2)
        self.patch.setattr(text_tree, "LONG", 3)

    def teardown(self):
        self.patch.undo()


TreeAgainstReference.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
BlocksAgainstReference.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_tree_against_reference = TreeAgainstReference.TestCase
test_blocks_against_reference = BlocksAgainstReference.TestCase


def test_a_match_ends_inside_an_edge():
    tree = TextTree(10_000, block=1)
    tree.insert(b"the quick brown fox", "a")
    assert tree.match(b"the quick red fox") == {"a": 10}


def test_all_holders_are_reported_with_their_own_length():
    tree = TextTree(10_000, block=1)
    tree.insert(b"system prompt; question one", "a")
    tree.insert(b"system prompt; question two", "b")
    tree.insert(b"system", "c")
    assert tree.match(b"system prompt; question two and more") == {"a": 24, "b": 27, "c": 6}


def test_a_split_never_needs_a_whole_character():
    tree = TextTree(10_000, block=1)
    tree.insert("naïve é".encode(), "a")
    tree.insert("naïve è".encode(), "b")
    assert tree.match("naïve è".encode()) == {"a": 8, "b": 9}


def test_namespaces_never_match_each_other():
    tree = TextTree(10_000, block=1)
    tree.insert(b"hello", "a", "lora-1")
    assert tree.match(b"hello") == {}
    assert tree.match(b"hello", "lora-1") == {"a": 5}


def test_shared_text_is_stored_once():
    tree = TextTree(100_000, block=1)
    for worker in "abcdefgh":
        tree.insert(b"x" * 1000, worker)
    assert tree.text_bytes == 1000
    assert all(tree.held(worker) == 1000 for worker in "abcdefgh")


def room_for(prompts):
    """A budget for this many prompts of 1,000 bytes that share nothing."""
    return NODE_BYTES + FORK_BYTES + prompts * (1000 + NODE_BYTES)


def prompt(letter):
    return letter.encode() * 1000


def test_the_fullest_worker_gives_up_its_oldest_prompt():
    tree = TextTree(room_for(5), block=1)
    tree.insert(prompt("s"), "small")
    for letter in "abcde":
        tree.insert(prompt(letter), "big")
    assert tree.match(prompt("s")) == {"small": 1000}
    assert tree.match(prompt("a")) == {}
    assert tree.match(prompt("b")) == {"big": 1000}


def test_a_used_prompt_outlives_a_newer_unused_one():
    tree = TextTree(room_for(5), block=1)
    for letter in "abcdeaf":
        tree.insert(prompt(letter), "w")
    assert tree.match(prompt("a")) == {"w": 1000}
    assert tree.match(prompt("b")) == {}


def test_a_shared_head_outlives_its_oldest_tail():
    tree = TextTree(room_for(4), block=1)
    for letter in "abcde":
        tree.insert(b"h" * 500 + prompt(letter)[:500], "w")
    for letter in "xy":
        tree.insert(prompt(letter), "w")
    assert tree.match(b"h" * 500 + prompt("a")) == {"w": 500}
    assert tree.match(b"h" * 500 + prompt("e")) == {"w": 1000}


def test_a_prompt_longer_than_a_quarter_of_the_budget_is_cut():
    tree = TextTree(4000, block=1)
    tree.insert(b"kept", "a")
    tree.insert(b"x" * 100_000, "a")
    assert tree.match(b"kept") == {"a": 4}
    assert tree.match(b"x" * 100_000) == {"a": 1000}


def test_trim_drops_the_old_siblings_and_keeps_the_prompt_itself():
    tree = TextTree(100_000, block=1)
    tree.insert(b"system: a; user: old", "w", now=1.0)
    tree.insert(b"system: b; user: far", "w", now=1.0)
    tree.insert(b"system: a; user: new", "w", now=5.0)
    tree.insert(b"system: a; user: late", "w", now=6.0)
    tree.trim(b"system: a; user: new", "w", 9, before=4.0)
    assert tree.match(b"system: a; user: old") == {"w": 17}
    assert tree.match(b"system: b; user: far") == {"w": 20}
    assert tree.match(b"system: a; user: late") == {"w": 21}
    assert tree.match(b"system: a; user: new") == {"w": 20}


def test_trim_spares_what_shares_no_more_than_was_reported_and_what_is_not_older():
    tree = TextTree(100_000, block=1)
    tree.insert(b"abcd-old", "w", now=1.0)
    tree.insert(b"abcd-new", "w", now=5.0)
    assert tree.trim(b"abcd-new", "w", 5, before=4.0) == 0
    assert tree.trim(b"abcd-new", "w", 4, before=1.0) == 0
    assert tree.trim(b"abcd-new", "w", 4, before=4.0) == 1


def test_a_tree_thousands_of_nodes_deep_does_not_recurse():
    tree = TextTree(50_000_000, block=1)
    for length in range(1, 3000):
        tree.insert(b"x" * length, f"w{length % 2}")
    assert tree.match(b"x" * 5000) == {"w0": 2998, "w1": 2999}
    tree.forget("w0")
    tree.forget("w1")
    assert (tree.used_bytes, tree.nodes) == (0, 0)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        TextTree(0)


def test_the_byte_count_is_close_to_what_python_allocates():
    rng = Random(0)
    prompts = [bytes(rng.choices(b"etaoin ", k=600)) for _ in range(4000)]
    tree = TextTree(1 << 30)
    tracemalloc.start()
    try:
        for index, prompt in enumerate(prompts):
            tree.insert(prompt, f"w{index % 4}", now=float(index))
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tree.used_bytes == pytest.approx(allocated, rel=0.15)


LONG_TEXT = b"0123456789abcdef" * 300 + b"its end"


def found(tree, text, worker):
    """What inserting says."""
    said = tree.insert(text, worker, now=2.0)
    return said.held, said.known, said.continues


@pytest.mark.parametrize(
    "then",
    [
        lambda tree: found(tree, LONG_TEXT, "b"),
        lambda tree: found(tree, LONG_TEXT + b" goes on for more than a block", "a"),
        lambda tree: found(tree, LONG_TEXT[:-1] + b"? And then it goes on", "b"),
        lambda tree: found(tree, LONG_TEXT[:3000] + b"parts from it here, early", "b"),
        lambda tree: tree.touched(LONG_TEXT, "a"),
        lambda tree: tree.trim(LONG_TEXT, "a", 16, before=5.0),
        lambda tree: tree.forget("a"),
        lambda tree: tree.match(LONG_TEXT),
    ],
)
def test_a_long_prompt_that_was_not_copied_ends_with_its_last_block(then):
    tree, copying = TextTree(100_000), TextTree(100_000)
    for each in (tree, copying):
        each.insert(b"something else altogether", "a", now=1.0)
    tree.walk(LONG_TEXT)  # which finds that it is new, so that nothing of it is compared or copied
    tree.insert(LONG_TEXT, "a", now=1.0)
    copying.insert(LONG_TEXT, "a", now=1.0)
    assert then(tree) == then(copying)
    known = [(each.used_bytes, each.nodes, each.held("a"), each.held("b")) for each in (tree, copying)]
    assert known[0] == known[1]
    assert tree.match(LONG_TEXT + b"and more of it") == copying.match(LONG_TEXT + b"and more of it")
    assert found(tree, LONG_TEXT + b"and more of it", "a") == found(copying, LONG_TEXT + b"and more of it", "a")
    assert (tree.used_bytes, tree.nodes) == (copying.used_bytes, copying.nodes)


def test_one_giant_prompt_is_cut_to_its_part_of_the_budget():
    tree, text = TextTree(100_000), b"x" * 99_999
    tree.insert(b"something else altogether", "b")
    tree.walk(text)
    tree.insert(text, "a")
    assert tree.held("a") == 24_992
    assert tree.match(text) == {"a": 24_992}
