"""Blocks of prompts under way against a list of the prompts."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from policies.prefix.block_index import PromptKey, chain_of
from router.pending import PendingBlocks

PROMPT = st.lists(st.integers(0, 1), min_size=1, max_size=8)
URLS = ("a", "b")


def chains(tokens):
    ids = array("i", [*tokens, 9]).tobytes()
    return {size: chain_of(ids, size, PromptKey()) for size in (1, 2)}


def shared(one, other):
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


@given(st.lists(st.tuples(st.sampled_from(URLS), PROMPT, st.booleans()), max_size=20), PROMPT)
def test_a_prompt_shares_what_those_under_way_begin_with(steps, asked):
    pending, under_way = PendingBlocks(), {url: [] for url in URLS}
    for url, prompt, ends in steps:
        pending.add(url, chains(prompt))
        under_way[url].append(prompt)
        if ends:
            over = under_way[url].pop(0)
            pending.remove(url, chains(over))
    for url in URLS:
        expected = max((shared(asked, prompt) for prompt in under_way[url]), default=0)
        assert pending.tokens(url, chains(asked)) == expected
        for prompt in under_way[url]:
            pending.remove(url, chains(prompt))
    assert len(pending) == 0
