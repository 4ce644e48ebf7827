"""Which rows share a prefix, and the rows of a decode step put in the order and size that a graph wants."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.attention import sharing as module
from backend.attention.base import StepLayout
from backend.attention.sharing import find_sharing
from backend.runner.decode_rows import Rows, padded_sharing

PAGE = 4
SPARE = 999


def table_of(rows):
    """``rows`` are pairs: the group whose pages come first and how many of them; the rest are the row's own."""
    own = iter(range(1000, 10**6))
    length = max(shared for _, shared, _ in rows) + max(more for _, _, more in rows)
    table = np.zeros((len(rows), length), np.int32)
    for i, (group, shared, more) in enumerate(rows):
        pages = [group * 100 + k + 1 for k in range(shared)] + [next(own) for _ in range(more)]
        table[i, : len(pages)] = pages
    lens = [(shared + more) * PAGE - PAGE // 2 for _, shared, more in rows]
    return table, np.array(lens, np.int32)


rows_strategy = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=40)


@given(rows_strategy, st.integers(2, 6))
def test_groups_read_the_pages_that_all_their_rows_begin_with(rows, max_groups):
    table, lens = table_of(rows)
    found = _find(table, lens, max_groups)
    if found is None:
        return
    assert sorted(found.order) == list(range(len(rows)))
    assert len(found.pages) == len(found.bounds) - 1 <= max_groups
    assert found.bounds[0] == 0
    assert found.bounds[-1] == len(rows)
    assert len(found.pages[-1]) == 0
    for pages, start, end in zip(found.pages, found.bounds, found.bounds[1:], strict=False):
        for row in found.order[start:end]:
            assert list(table[row, : len(pages)]) == list(pages)
            assert len(pages) * PAGE < lens[row]  # something is left, the new token at least


def _find(table, lens, max_groups=8):
    before = module.LEAST_SAVED_TOKENS
    module.LEAST_SAVED_TOKENS = 1
    try:
        return find_sharing(table, lens, PAGE, max_groups)
    finally:
        module.LEAST_SAVED_TOKENS = before


def test_what_is_worth_it_is_found_and_the_rest_is_left():
    table, lens = table_of([(1, 8, 1), (2, 8, 2)] * 5 + [(3, 0, 2)])
    found = _find(table, lens)
    assert [len(pages) for pages in found.pages] == [8, 8, 0]
    assert list(np.diff(found.bounds)) == [5, 5, 1]
    assert _find(*table_of([(i, 8, 1) for i in range(9)])) is None
    assert _find(*table_of([(1, 1, 3), (1, 1, 3), (1, 1, 3), (1, 1, 3), *[(2, 0, 3)] * 9])) is None
    assert find_sharing(table, lens, PAGE, 8) is None  # too few tokens for a second kernel


def test_rows_are_ordered_and_padded():
    layout = StepLayout(
        torch.ones(3, dtype=torch.int32),
        torch.tensor([5, 6, 7], dtype=torch.int32),
        torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.int32),
        torch.tensor([10, 20, 30]),
    )
    rows = Rows(np.array([0, 1, 2]), np.array([4, 5, 6]), np.array([7, 8, 9]), layout)
    found = rows.ordered(np.array([2, 0, 1])).padded(5, SPARE)
    assert list(found.places) == [2, 0, 1, SPARE, SPARE]
    assert list(found.positions) == [6, 4, 5, 0, 0]
    assert list(found.sampled_places) == [9, 7, 8, SPARE, SPARE]
    assert found.layout.kv_lens.tolist() == [7, 5, 6, 1, 1]
    assert found.layout.page_table.tolist() == [[5, 6], [1, 2], [3, 4], [0, 0], [0, 0]]
    assert found.layout.locations.tolist() == [30, 10, 20, 0, 0]
    assert rows.padded(3, SPARE) is rows


def test_rows_of_padding_share_nothing():
    table, lens = table_of([(1, 8, 1)] * 8)
    padded = padded_sharing(_find(table, lens), 12)
    assert list(np.diff(padded.bounds)) == [8, 4]
    assert len(padded.pages[-1]) == 0
