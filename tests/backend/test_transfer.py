"""Memory that captured steps read: on the CPU what is written is there; regions are apart and stay where they are."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend import transfer
from backend.transfer import FixedMemory

CPU = torch.device("cpu")


def test_regions_hold_what_was_written_last_at_the_same_address():
    memory = FixedMemory(CPU)
    places, pages = memory.region(3, torch.int64), memory.region(5, torch.int32)
    before = places.tensor.data_ptr(), pages.tensor.data_ptr()
    for numbers in ([1, 2, 3], [7, 8]):
        places.write(np.array(numbers, np.int64))
        pages.write(np.array([9, *numbers], np.int32))
        memory.send()
        assert places.tensor[: len(numbers)].tolist() == numbers
        assert pages.tensor[: len(numbers) + 1].tolist() == [9, *numbers]
    assert places.tensor.tolist() == [7, 8, 3]
    assert (places.tensor.data_ptr(), pages.tensor.data_ptr()) == before


def test_regions_come_before_the_first_write():
    memory = FixedMemory(CPU)
    memory.region(1, torch.int32).write(np.zeros(1, np.int32))
    with pytest.raises(RuntimeError, match="before the first write"):
        memory.region(1, torch.int32)


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 1 << 12)), max_size=8))
def test_joined_spans_cover_all_and_lie_apart(parts):
    spans = [(start, start + size) for start, size in parts]
    found = transfer._joined(spans)
    assert all(any(a <= start and end <= b for a, b in found) for start, end in spans)
    assert all(after[0] - before[1] > transfer.SMALL_GAP for before, after in pairwise(found))
    assert {start for start, _ in found} <= {start for start, _ in spans}
