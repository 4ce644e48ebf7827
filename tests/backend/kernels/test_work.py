"""The lists of work cover each row's tokens once, whatever the lengths."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.attention.work import decode_items, query_blocks

PATIENT = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # beside busy processes
LENGTHS = st.lists(st.integers(1, 5000), min_size=1, max_size=40)


@PATIENT
@given(LENGTHS, st.none() | st.integers(1, 300), st.integers(1, 70), st.sampled_from([16, 32, 64]))
def test_decode_items_cover_what_each_row_sees(lens, window, extra, tile):
    items, firsts = decode_items(np.array(lens, np.int32), window, extra, tile)
    assert items.shape == (3, len(lens) + extra)
    assert firsts[0] == 0
    assert firsts[-1] <= items.shape[1]
    assert (items[1:, firsts[-1] :] == 0).all()
    for row, length in enumerate(lens):
        mine = items[:, firsts[row] : firsts[row + 1]]
        assert (mine[0] == row).all()
        seen = [position for _, start, end in mine.T for position in range(start, end)]
        assert seen == list(range(max(0, length - window) if window else 0, length))
        assert ((mine[2] - mine[1])[:-1] % tile == 0).all()


@PATIENT
@given(LENGTHS, st.integers(1, 70))
def test_long_rows_do_not_outlast_the_others(lens, extra):
    items, _ = decode_items(np.array(lens, np.int32), None, extra, 16)
    assert (items[2] - items[1]).max() <= -(-sum(lens) // extra) + 16


@PATIENT
@given(st.lists(st.tuples(st.integers(2, 500), st.integers(0, 500)), min_size=1, max_size=20), st.integers(1, 64))
def test_query_blocks_cover_each_row_heaviest_first(rows, positions):
    new, before = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    blocks = query_blocks(new, new + before, positions)
    covered = sorted(
        (int(row), int(at)) for row, first in blocks.T for at in range(first, min(first + positions, new[row]))
    )
    assert covered == [(row, at) for row in range(len(new)) for at in range(new[row])]
    weights = before[blocks[0]] + blocks[1]
    assert (np.diff(weights) <= 0).all()
